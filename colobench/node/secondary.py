"""Secondary: receives the migrated guest, then follows it, checkpoint by checkpoint."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from colobench.errors import LocalError, RemoteError
from colobench.kernels import bitmap
from colobench.kernels.page_records import PAGE_RECORD_BYTES
from colobench.memory.ram import PAGE_SIZE, RAMCache
from colobench.memory.tracker import Words
from colobench.node.channel import Channel
from colobench.node.colo_thread import Interrupted
from colobench.node.flush import flush
from colobench.node.frame_socket import FrameSocket
from colobench.node.migration.transports import incoming_stream, page_receiver
from colobench.node.monitor import MonitorCommand
from colobench.node.node import Node
from colobench.node.phases import Phases
from colobench.node.planted_bugs import forget_zero_pages, without_a_device
from colobench.node.primary import Primary
from colobench.node.primary_stream import PrimaryStream, follow
from colobench.node.runtime import NodeRuntime
from colobench.node.wait import Wait
from colobench.protocol.colo import ColoAction, LocalEvent, Role
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Layout
from colobench.wire.loadvm import (
    COLO_BUFFER,
    COLO_DEVICES,
    COLO_PASS,
    COLO_RAM,
    VMDESCRIPTION_LIMIT,
    Stage,
)
from colobench.wire.messages import SIZE_LIMIT, Message
from colobench.wire.vmstate import Device
from colobench.wire.vmstate import State as DeviceState

if TYPE_CHECKING:
    from colobench.node.migration.divergent import ComparedPages


class MigrationRefused(RemoteError):
    """Migration that does not lead to COLO, or a node without the capability x-colo."""


class Secondary(Node):
    """Node that follows.

    Parameters
    ----------
    runtime
        Process of the node; its option `incoming` is the address for the primary.
    """

    role = Role.SECONDARY

    def __init__(self, runtime: NodeRuntime) -> None:
        super().__init__(runtime)
        options = runtime.options
        self._cache = RAMCache("colobench-ram-cache", self.guest.machine.ram.blocks)
        self._incoming = incoming_stream(self.settings, self.guest.machine, self._cache)
        self._compared = self._make_compared_pages() if self.compares_pages else None
        self._listener: socket.socket | None = None
        self._mirror_listener: socket.socket | None = None
        self._mirror_uri = ""
        self._stream: PrimaryStream | None = None
        self._uri = str(options.incoming)
        self._status = "none"
        self._size = 0
        self._device_states: list[tuple[Device, DeviceState]] = []
        self._loading = False
        #: Whether RAM and disks may be of two checkpoints.
        self._applying = False
        #: Whether the guest stands still after the checkpoint that has been requested.
        self._passive = False
        self._flushed_pages = 0
        self._digests: dict[str, Any] = {}
        self._reported = True
        self._phases = Phases()
        self._report_pages = False
        self._flushed_bitmap = self._cache.bitmap
        self.guest.follow()

    def begin(self) -> None:
        """Listen for the primary."""
        assert self.options.incoming is not None
        self._listener, listening = self.options.incoming.listen()
        self.monitor.emit("X_LISTENING", {"uri": str(listening)})
        self._uri = str(listening)
        if self.options.mirror is not None:
            self._mirror_listener, at = self.options.mirror.listen()
            self._mirror_uri = str(at)
        self.colo.run(self._follow)

    def end(self) -> None:
        """Leave the pair."""
        for listener in (self._listener, self._mirror_listener):
            if listener is not None:
                # A shutdown wakes a thread that waits in `accept`.
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
        super().end()

    def run_alone(self) -> None:
        """Let the guest run from RAM, which no page of an incomplete checkpoint has entered."""
        if self.settings.experiment.bug is Bug.FLUSHED_GAP:
            self._flush()
        super().run_alone()

    def retire(self) -> None:
        """Release the resources of this node, which its successor does not take over."""
        super().retire()
        for listener, address in (
            (self._listener, self.options.incoming),
            (self._mirror_listener, self.options.mirror),
        ):
            if listener is not None and address is not None:
                listener.close()
                address.remove()
        self._cache.close()

    def successor(self) -> Node:
        """Make the side that this process is after a failover."""
        return Primary(self.runtime, "completed")

    def loading(self) -> bool:
        """Return whether a committed checkpoint is being loaded."""
        return self._loading

    def commands(self) -> dict[str, MonitorCommand]:
        """Return the monitor's commands."""
        return super().commands() | {
            "migrate-set-parameters": MonitorCommand(
                self._migrate_set_parameters,
                optional={"x-report-pages": bool, "x-committed": int},
            ),
            "x-query-ram-cache": MonitorCommand(self._query_ram_cache),
            "x-disks-serve": MonitorCommand(self._serve_disks, {"images": list, "generation": str}),
        }

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""
        return {
            ColoAction.START_GUEST: self.guest.start,
            ColoAction.STOP_GUEST: self._pause,
            ColoAction.SEND_CHECKPOINT_READY: lambda: self.colo.send(Message.CHECKPOINT_READY),
            ColoAction.TAKE_REQUEST: self._take_request,
            ColoAction.SEND_CHECKPOINT_REPLY: self._reply,
            ColoAction.BECOME_PASSIVE: self._become_passive,
            ColoAction.RECEIVE_PASS: self._receive_pass,
            ColoAction.COMPARE_PAGES: self._compare_pages,
            ColoAction.RECEIVE_RAM: self._receive_ram,
            ColoAction.RECEIVE_BUFFER: self._receive_buffer,
            ColoAction.SEND_VMSTATE_RECEIVED: self._commit,
            ColoAction.FLUSH_AND_LOAD: self._flush_and_load,
            ColoAction.SEND_VMSTATE_LOADED: self._say_loaded,
        }

    def query_migrate(self) -> dict[str, Any]:
        """Return the answer of ``query-migrate``."""
        return {"status": self._status, "x-incoming": self._uri, "x-mirror": self._mirror_uri}

    def _migrate_set_parameters(
        self, x_report_pages: bool | None = None, x_committed: int | None = None
    ) -> None:
        if x_report_pages is not None:
            self._report_pages = x_report_pages
        if x_committed is not None:
            # The count of checkpoints goes on if the guest was protected before.
            if self.in_colo() or x_committed < 0:
                raise LocalError(
                    f"x-committed: expected a number from 0 up before COLO, found {x_committed}"
                )
            self.guest.checkpoint = x_committed

    def _query_ram_cache(self) -> dict[str, Any]:
        received = self._cache.bitmap.copy()
        return {"pages": int(bitmap.popcount(received)), "pages-bitmap": _encode(received)}

    # COLO thread.

    def _follow(self) -> None:
        self._accept()
        self._take_migration()
        self.enter_colo()
        self._status = "colo"
        self.guest.run_state = "colo"
        self.monitor.emit("MIGRATION", {"status": "colo"})
        self.colo.happened(LocalEvent.MIGRATED)
        self.colo.step()
        try:
            # The primary does not wait for the record.
            follow(self.colo, self._channel(), self._report_checkpoint)
        finally:
            self._report_checkpoint()
        self.quit()

    def _accept(self) -> None:
        assert self._listener is not None
        # A primary may connect at any time; from then on, messages are due.
        main = Wait("a primary", None).accept(self._listener)
        channel = self.open_channel(main)
        self._stream = PrimaryStream(channel, self._incoming)
        self._stream.header()
        timeout = self.settings.checkpoint.stall_timeout
        receiver = page_receiver(
            self.settings.checkpoint,
            self._cache,
            self.workers,
            channel,
            self.settings.experiment.bug,
        )
        receiver.accept(self._listener, Wait("page channels", timeout, main))
        if self._mirror_listener is not None:
            wait = Wait("a mirror connection, found none", timeout, main)
            self.network.attach_mirror(FrameSocket(wait.accept(self._mirror_listener)))
        self._status = "active"

    def colo_failed(self, error: BaseException) -> None:
        """End a migration that failed; otherwise see `Node`.

        Without disks, a checkpoint whose RECEIVED could not be sent was never committed, so nothing
        is being loaded, and a failover that waited for its load can go on.
        """
        if not self.in_colo() or self._applying:
            # RAM or disks have a part of a checkpoint: this guest must never serve.
            self._status = "failed"
            self.runtime.died(self.role.value, error)
            return
        with self.lock:
            self._loading = False
        if not self.takeover.load_finished():
            super().colo_failed(error)

    def _serve_disks(self, images: list[object], generation: str) -> dict[str, Any]:
        """Serve images to a primary, before its migration."""
        address = self.options.disks
        if address is None:
            raise LocalError("x-disks-serve: expected a node with the option --disks")
        with self.lock:
            if self.in_colo() or self._status != "none":
                raise LocalError(f"x-disks-serve: expected no migration yet, found {self._status}")
            return self.runtime.disks.serve(list(map(str, images)), generation, address)

    def _channel(self) -> Channel:
        assert self.colo.channel is not None
        return self.colo.channel

    def _take_migration(self) -> None:
        assert self._stream is not None
        loaded = self._stream.migration()
        if not self.colo_status.enabled:
            raise MigrationRefused(
                "ENABLE_COLO: expected the capability x-colo to be set here, found it off"
            )
        self._stream.description(VMDESCRIPTION_LIMIT)
        self._device_states = loaded.device_states
        self._flush()
        self.guest.load(self._device_states)

    def _pause(self) -> None:
        self.guest.rest()
        self.guest.rested()
        self.guest.stop("colo")
        self.guest.seal()

    def _take_request(self) -> None:
        self.breakpoints.reach("request")
        self._phases.end("reply")

    def _reply(self) -> None:
        self._take_request()
        self.colo.send(Message.CHECKPOINT_REPLY)
        self.breakpoints.reach("reply")

    def _become_passive(self) -> None:
        self._passive = True

    def message_received(self, received: Message, value: int | None) -> None:
        """Take note of a message's value for the next step."""
        if received is Message.CHECKPOINT_REQUEST:
            self._passive = False
            self._phases = Phases()
            if self.settings.experiment.bug is Bug.EARLY_EMPTIED:
                self.runtime.disks.empty_layers()
        elif received is Message.PAGE_HASHES:
            self.breakpoints.reach("hashes")
        elif received is Message.VMSTATE_SEND:
            self._phases.end("send")
            self.guest.arriving()
            self.breakpoints.reach("send")
        elif received is Message.MIGRATE_RAM_BACKGROUND:
            self.breakpoints.reach("pass")
        elif value is not None:
            self._phases.end("size")
            self._size = value
            self.breakpoints.reach("size")

    def size_limit(self) -> int:
        """Return the usual limit, or for a buffer with RAM a limit that depends on RAM's size."""
        if self.settings.checkpoint.layout is Layout.SEPARATED:
            return SIZE_LIMIT
        return SIZE_LIMIT + len(self._cache.array) // PAGE_SIZE * PAGE_RECORD_BYTES

    def _receive_pass(self) -> None:
        self._receive_pages(COLO_PASS)
        self.breakpoints.reach("pass-received")
        self.colo.happened(LocalEvent.PASS_RECEIVED)

    def _make_compared_pages(self) -> ComparedPages:
        from colobench.node.migration.divergent import ComparedPages  # It takes a kernel.

        return ComparedPages(self.guest.machine.ram, self._cache, self.workers)

    def _compare_pages(self) -> None:
        assert self._compared is not None
        self._compared.answer(self._channel(), self.breakpoints)
        self._phases.end("hash")

    def _receive_pages(self, stage: Stage) -> None:
        assert self._stream is not None
        self._stream.pages(stage, len(self._cache.array))

    def _receive_ram(self) -> None:
        self._receive_pages(COLO_RAM)
        self._phases.end("ram")
        if self.settings.experiment.bug is Bug.EARLY_FLUSH:
            self._flush()
        self.breakpoints.reach("ram-received")
        self.colo.happened(LocalEvent.RAM_RECEIVED)

    def _receive_buffer(self) -> None:
        """Receive the sized buffer whole, then parse all of it; nothing is applied."""
        assert self._stream is not None
        stage = COLO_DEVICES if self.settings.checkpoint.layout is Layout.SEPARATED else COLO_BUFFER
        self._device_states = self._stream.sized(self._size, stage).device_states
        self._phases.end("buffer")
        self.breakpoints.reach("buffer-received")
        self.colo.happened(LocalEvent.BUFFER_RECEIVED)

    def _commit(self) -> None:
        """Send VMSTATE_RECEIVED, unless a failover came first: then the checkpoint is void."""
        with self.lock:
            if self.takeover.begun:
                raise Interrupted
            self._loading = True
            # Disks may be the checkpoint's from the next call on, so RAM has to be, too.
            self._applying = bool(self.guest.machine.disks)
        self.guest.received()
        self._phases.end("commit")
        try:
            self.colo.send(Message.VMSTATE_RECEIVED)
        except RemoteError:
            if not self._applying:
                raise
            # LOADED will fail, too.
        self.breakpoints.reach("received")

    def _flush(self) -> int:
        """Copy pages from the cache to RAM: those received, and those that our guest wrote."""
        tracker = self.guest.machine.tracker
        if self.settings.experiment.bug is not Bug.FLUSH_PRIMARY_ONLY:
            tracker.collect(self._cache.bitmap)
        tracker.disarm()
        if self._compared is not None and self.settings.experiment.bug is not Bug.STALE_CACHE:
            self._compared.enter_cache()
        if self._report_pages:
            self._flushed_bitmap = self._cache.bitmap.copy()
        if self.settings.experiment.bug is Bug.SKIPPED_ZERO_PAGES:
            forget_zero_pages(self._cache)
        flushed = flush(self.guest.machine.ram, self._cache, self.workers)
        if self.variant.secondary_runs:
            tracker.arm()
        return flushed

    def _flush_and_load(self) -> None:
        self._phases.end("received")
        self._applying = True
        self._flushed_pages = self._flush()
        self._phases.end("flush")
        self.breakpoints.reach("flush")
        if self.settings.experiment.bug is Bug.DIRTY_LOAD:
            self._device_states = without_a_device(self._device_states)
        self.guest.load(self._device_states)
        self._applying = False
        self._phases.end("load")
        if self.settings.checkpoint.verify:
            self._digests = self.guest.digests(self.guest.save_devices())
            self._phases.end("verify")
        self.breakpoints.reach("load")
        self.guest.committed()
        self._reported = False
        self.colo.happened(LocalEvent.LOADED_PASSIVE if self._passive else LocalEvent.LOADED)

    def _say_loaded(self) -> None:
        with self.lock:
            self._loading = False
            relaunch = self.takeover.begun
        if relaunch:
            self._report_checkpoint()
            self.takeover.load_finished()
            raise Interrupted
        self._phases.end("loaded")
        self.colo.send(Message.VMSTATE_LOADED)
        self.guest.arrived()

    def _report_checkpoint(self) -> None:
        """Emit the record of the last checkpoint, unless that has been done."""
        if self._reported:
            return
        self._reported = True
        record = {
            "checkpoint": self.guest.checkpoint,
            "flushed-pages": self._flushed_pages,
            "buffer-bytes": self._size,
            "marks": self._phases.marks,
            **self._digests,
            **self.guest.statistics(),
        }
        if self._report_pages:
            record["flushed-bitmap"] = _encode(self._flushed_bitmap)
        self.monitor.emit("X_COLO_CHECKPOINT", record)


def _encode(words: Words) -> str:
    return base64.b64encode(words.tobytes()).decode()
