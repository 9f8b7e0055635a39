"""State of a filter-rewriter as a device of the stream, sent with each checkpoint.

A survivor's clients keep the sequence numbers of the guest that they connected to. So the node that
takes over from the survivor needs the offsets. QEMU does not send its filter-rewriter's state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colobench.net.frame import ConnectionKey
from colobench.net.rewriter import Rewritten
from colobench.wire.vmstate import Field, State, StateParser, VMStateDescription, VMStateError

_ENTRY = struct.Struct(">4sH4sHIIIB")
_GUEST_OPENED, _NOT_ACKNOWLEDGED = 1, 2
CONNECTIONS_LIMIT = 16384


class RewriterDevice:
    """State of a filter-rewriter, with the interface of `colobench.wire.vmstate.Device`.

    Parameters
    ----------
    give
        Function that returns the connections that are rewritten.
    take
        Function that is called with the primary's rewritten connections.
    """

    vmstate = VMStateDescription(
        "filter-rewriter",
        1,
        1,
        (Field("size", "u4"), Field("data", "u1", "size", CONNECTIONS_LIMIT * _ENTRY.size)),
    )
    idstr = vmstate.name
    instance_id = 0
    version_id = vmstate.version_id
    minimum_version_id = vmstate.minimum_version_id

    def __init__(
        self, give: Callable[[], Sequence[Rewritten]], take: Callable[[list[Rewritten]], None]
    ) -> None:
        self._give, self._take = give, take

    def state(self) -> State:
        """Return the present state."""
        data = b"".join(_encode(each) for each in self._give()[:CONNECTIONS_LIMIT])
        return {
            "size": np.array([len(data)], np.uint32),
            "data": np.frombuffer(data, np.uint8),
        }

    def save(self) -> bytes:
        """Encode the state."""
        return self.vmstate.save(self.state())

    def parse(self, version_id: int) -> StateParser:
        """Decode a state, and check that it consists of whole connections."""
        state = yield from self.vmstate.parse(version_id)
        size = int(state["size"][0])
        if size % _ENTRY.size:
            raise VMStateError(
                f"device 'filter-rewriter', field 'size': expected a multiple of {_ENTRY.size}, "
                f"found {size}"
            )
        return state

    def apply(self, state: State) -> None:
        """Apply a state that `parse` returned."""
        self._take([_decode(*fields) for fields in _ENTRY.iter_unpack(state["data"].tobytes())])

    def describe(self) -> dict[str, Any]:
        """Return its entry in the vmdescription."""
        return {
            "name": self.idstr,
            "instance_id": self.instance_id,
            "vmsd_name": self.idstr,
            "version": self.version_id,
            "fields": self.vmstate.describe(self.state()),
        }


def _encode(entry: Rewritten) -> bytes:
    flags = (entry.client_isn is None) * _GUEST_OPENED
    flags |= (entry.offset is None) * _NOT_ACKNOWLEDGED
    return _ENTRY.pack(
        *entry.connection, entry.client_isn or 0, entry.guest_isn, entry.offset or 0, flags
    )


def _decode(
    source: bytes,
    source_port: int,
    destination: bytes,
    destination_port: int,
    client_isn: int,
    guest_isn: int,
    offset: int,
    flags: int,
) -> Rewritten:
    return Rewritten(
        ConnectionKey(source, source_port, destination, destination_port),
        None if flags & _GUEST_OPENED else client_isn,
        guest_isn,
        None if flags & _NOT_ACKNOWLEDGED else offset,
    )
