"""The machine's devices: CPU, timer, serial console and NIC, each with versioned save and load.

A device's registers are numpy arrays that the running guest kernel reads and writes in place
(`colobench.guest.numba.cpu` names the slots); save and load use the same arrays while it stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.guest.frame_queue import NIC_FRAME_SIZE, NIC_QUEUE_LENGTH, FrameQueue
from colobench.guest.programs import Program
from colobench.wire.vmstate import Field, State, StateParser, VMStateDescription, VMStateError

SERIAL_SCROLLBACK = 512

U64Array = npt.NDArray[np.uint64]


class Registers:
    """A device with named 64-bit registers in one array, and optionally more state.

    The array, uint64[len(slots)], is shared with the running guest; by default it is a new one.
    """

    instance_id = 0
    vmstate: VMStateDescription

    def __init__(self, slots: tuple[str, ...], registers: U64Array | None = None) -> None:
        self._slots = slots
        self.registers = np.zeros(len(slots), dtype=np.uint64) if registers is None else registers
        self._views = {slot: self.registers[i : i + 1] for i, slot in enumerate(slots)}

    @property
    def idstr(self) -> str:
        """Name of the device in the stream."""
        return self.vmstate.name

    @property
    def version_id(self) -> int:
        """Version of the state that it saves."""
        return self.vmstate.version_id

    @property
    def minimum_version_id(self) -> int:
        """Oldest version of a state that it loads."""
        return self.vmstate.minimum_version_id

    def __getitem__(self, slot: str) -> int:
        return int(self.registers[self._slots.index(slot)])

    def __setitem__(self, slot: str, value: int) -> None:
        self.registers[self._slots.index(slot)] = value

    def state(self) -> State:
        """Return the device's present state."""
        return self._views.copy()

    def save(self) -> bytes:
        """Encode its state."""
        return self.vmstate.save(self.state())

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state without applying it."""
        return self.vmstate.parse(version_id)

    def apply(self, state: State) -> None:
        """Apply a state that `parse` returned."""
        np.concatenate([state[slot] for slot in self._slots], out=self.registers)

    def describe(self) -> dict[str, Any]:
        """Return its entry in the vmdescription."""
        return {
            "name": self.idstr,
            "instance_id": self.instance_id,
            "vmsd_name": self.idstr,
            "version": self.version_id,
            "fields": self.vmstate.describe(self.state()),
        }


def register_fields(slots: tuple[str, ...]) -> tuple[Field, ...]:
    """Return the fields of a device's registers."""
    return tuple(Field(slot, "u8") for slot in slots)


_PROGRAM_NUMBERS = sorted(program.number for program in Program if not program.needs_kvm)
CPU_SLOTS = (
    "work",
    "pending_writes",
    "seed",
    "program",
    "writes_per_tick",
    "working_set",
    "clock_us",
    "jitter_us",
    "shuffle",
    "keys",
)


class CPU(Registers):
    """The CPU: the work counter, the program, and the program's settings.

    ``work`` counts the program's steps; RAM is a function of it and of ``seed``. ``pending_writes``
    is the number of writes still to do in the current tick. ``working_set`` is the number of pages
    that the program writes: 0, or more than there are, for all pages. The next three are the
    settings of `colobench.guest.settings.NondeterminismSettings`. ``keys`` is the number of keys in
    the program kv.
    """

    vmstate = VMStateDescription("cpu", 1, 1, register_fields(CPU_SLOTS))

    def __init__(self) -> None:
        super().__init__(CPU_SLOTS)

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state; an unknown program is refused."""
        state = yield from super().parse(version_id)
        number = int(state["program"][0])
        if number not in _PROGRAM_NUMBERS:
            raise VMStateError(
                f"device 'cpu', field 'program': expected one of "
                f"{', '.join(map(str, _PROGRAM_NUMBERS))}, found {number}"
            )
        return state


TIMER_SLOTS = ("period_ns", "remaining_ns", "ticks", "coalesced_ticks")


class Timer(Registers):
    """A periodic timer on the host's clock; ticks during a pause are coalesced into one."""

    vmstate = VMStateDescription("timer", 1, 1, register_fields(TIMER_SLOTS))

    def __init__(self) -> None:
        super().__init__(TIMER_SLOTS)

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state; a timer without a period is refused."""
        state = yield from super().parse(version_id)
        if not state["period_ns"][0]:
            raise VMStateError("device 'timer', field 'period_ns': expected at least 1, found 0")
        return state


SERIAL_SLOTS = ("transmitted",)


class Serial(Registers):
    """A serial console: the number of bytes that the guest wrote, and the last 512 of them."""

    vmstate = VMStateDescription(
        "serial",
        1,
        1,
        (*register_fields(SERIAL_SLOTS), Field("scrollback", "u1", SERIAL_SCROLLBACK)),
    )

    def __init__(self) -> None:
        super().__init__(SERIAL_SLOTS)
        #: uint8[512], a ring: byte n of the output is at n % 512.
        self.scrollback: npt.NDArray[np.uint8] = np.zeros(SERIAL_SCROLLBACK, dtype=np.uint8)

    def state(self) -> State:
        """Return the device's present state."""
        return super().state() | {"scrollback": self.scrollback}

    def apply(self, state: State) -> None:
        """Apply a state that `parse` returned."""
        super().apply(state)
        self.scrollback[:] = state["scrollback"]

    def put(self, data: bytes) -> None:
        """Take output of a guest that has no kernel for it."""
        for byte in data:
            self.scrollback[self["transmitted"] % SERIAL_SCROLLBACK] = byte
            # It wraps as the kernels' counter does: a state of the peer may have any value.
            self["transmitted"] = (self["transmitted"] + 1) % 2**64

    def text(self) -> str:
        """Return the output that is still in the scrollback."""
        end = self["transmitted"]
        begin = max(0, end - SERIAL_SCROLLBACK)
        ring = self.scrollback.tobytes()
        return bytes(ring[n % SERIAL_SCROLLBACK] for n in range(begin, end)).decode(
            "ascii", "replace"
        )


NIC_SLOTS = ("sent", "dropped", "received")


class NIC(Registers):
    """A network card with a receive and a transmit queue of 64 Ethernet frames each.

    The host puts frames into the receive queue and takes them from the transmit queue. A frame that
    it takes is no longer part of the machine; `colobench.net` holds it until a checkpoint.
    """

    vmstate = VMStateDescription(
        "nic",
        1,
        1,
        (
            *register_fields(NIC_SLOTS),
            *(
                field
                for queue in ("receive", "transmit")
                for field in (
                    Field(f"{queue}_frames", "u4"),
                    Field(f"{queue}_lengths", "u4", f"{queue}_frames", NIC_QUEUE_LENGTH),
                    Field(f"{queue}_size", "u4"),
                    Field(
                        f"{queue}_data",
                        "u1",
                        f"{queue}_size",
                        NIC_QUEUE_LENGTH * NIC_FRAME_SIZE,
                    ),
                )
            ),
        ),
    )

    def __init__(self) -> None:
        super().__init__(NIC_SLOTS)
        self.queues = {"receive": FrameQueue(), "transmit": FrameQueue()}
        self._empty: dict[str, State] = {
            name: {
                f"{name}_frames": np.zeros(1, np.uint32),
                f"{name}_lengths": np.zeros(0, np.uint32),
                f"{name}_size": np.zeros(1, np.uint32),
                f"{name}_data": np.zeros(0, np.uint8),
            }
            for name in self.queues
        }

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """Return the arrays for the guest's kernels: the receive queue's, then the other's."""
        return tuple(
            array
            for queue in self.queues.values()
            for array in (queue.ends, queue.lengths, queue.frames)
        )

    def state(self) -> State:
        """Return the device's present state."""
        state = super().state()
        for name, queue in self.queues.items():
            frames = queue.list()
            if not frames:
                state |= self._empty[name]
                continue
            data = b"".join(frames)
            state[f"{name}_frames"] = np.array([len(frames)], np.uint32)
            state[f"{name}_lengths"] = np.array([len(frame) for frame in frames], np.uint32)
            state[f"{name}_size"] = np.array([len(data)], np.uint32)
            state[f"{name}_data"] = np.frombuffer(data, np.uint8)
        return state

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state: the frames' lengths must add up to the length of the data."""
        state = yield from super().parse(version_id)
        for name in self.queues:
            lengths, size = state[f"{name}_lengths"], int(state[f"{name}_size"][0])
            total = int(lengths.sum(dtype=np.int64)) if len(lengths) else 0
            if total != size:
                raise VMStateError(
                    f"device 'nic', field '{name}_size': expected the sum of the frames' lengths, "
                    f"{total}, found {size}"
                )
            if len(lengths) and not 14 <= lengths.min() <= lengths.max() <= NIC_FRAME_SIZE:
                raise VMStateError(
                    f"device 'nic', field '{name}_lengths': expected 14 to {NIC_FRAME_SIZE} bytes "
                    f"a frame, found {lengths.min()} to {lengths.max()}"
                )
        return state

    def apply(self, state: State) -> None:
        """Apply a state that `parse` returned."""
        super().apply(state)
        for name, queue in self.queues.items():
            queue.replace(state[f"{name}_lengths"], state[f"{name}_data"])


def standard_devices() -> tuple[Registers, ...]:
    """Make the devices that every machine has, for readers of their states."""
    return CPU(), Timer(), Serial(), NIC()
