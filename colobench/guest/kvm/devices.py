"""The KVM guest's devices: its virtual CPU's state and its local APIC, with versions.

A device keeps its state as of the guest's last stop, or as it was loaded since. What comes from the
peer is tried on a spare virtual CPU before it is accepted, so that a checkpoint that KVM would
refuse is refused before it is committed.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from colobench.guest.kvm.structures import (
    LAPIC,
    DebugRegs,
    MPState,
    Regs,
    Sregs,
    VCPUEvents,
    XCRs,
    XSave,
)
from colobench.guest.kvm.vcpu import TSC, GuestCPU
from colobench.memory.kvm import KVMError
from colobench.wire.vmstate import Field, State, StateParser, VMStateDescription, VMStateError

#: Words of 32 bits of the local APIC's page: its timer's current count, and the processor priority,
#: which follows from two other registers, and which KVM brings up to date late.
_NOT_COMPARED = [0x390 // 4, 0xA0 // 4]
_LEFT_OUT = ("padding", "reserved")
#: Beginnings of the fields of structures whose own names are used elsewhere, too.
_PREFIXES = {"XCRS": "xcr_", "DEBUGREGS": "debug_", "VCPU_EVENTS": "event_"}
#: numpy's codes of a structure's numbers, in memory and in the stream, which has none of 16 bits.
_CODES = {
    ctypes.c_uint8: ("u1", "u1"),
    ctypes.c_uint16: ("u2", "u4"),
    ctypes.c_uint32: ("u4", "u4"),
    ctypes.c_uint64: ("u8", "u8"),
}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Numbers of one type in a structure.

    Attributes
    ----------
    name
        Name of its field.
    offset, count
        Offset in the structure, and how many there are.
    code, wire_code
        numpy's codes in the structure and in the stream.
    """

    name: str
    offset: int
    count: int
    code: str
    wire_code: str


def _leaves(structure: Any, prefix: str = "", offset: int = 0) -> Iterator[_Leaf]:
    """List the numbers of a structure, without what is padding or reserved."""
    for name, kind in structure._fields_:
        if name in _LEFT_OUT:
            continue
        at = offset + getattr(structure, name).offset
        count, element = 1, kind
        if issubclass(kind, ctypes.Array):
            count, element = kind._length_, kind._type_
        if element in _CODES:
            yield _Leaf(prefix + name, at, count, *_CODES[element])
            continue
        for i in range(count):
            number = str(i) if count > 1 else ""
            yield from _leaves(element, f"{prefix}{name}{number}_", at + i * ctypes.sizeof(element))


class CPUDevice(ABC):
    """A part of a virtual CPU's state.

    Parameters
    ----------
    cpu
        The guest's virtual CPU.
    spare
        Function that returns the CPU on which states are tried.
    """

    instance_id = 0
    vmstate: VMStateDescription

    def __init__(self, cpu: GuestCPU, spare: Callable[[], GuestCPU]) -> None:
        self._cpu, self._spare = cpu, spare
        self._state: State = self._read(cpu)

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

    def state(self) -> State:
        """Return the state as of the last stop, or as it was loaded since."""
        return dict(self._state)

    def save(self) -> bytes:
        """Encode its state."""
        return self.vmstate.save(self._state)

    def parse(self, version_id: int) -> StateParser:
        """Decode a state, and check that KVM accepts it."""
        state = yield from self.vmstate.parse(version_id)
        self._check(state)
        try:
            self._write(self._spare(), state)
        except KVMError as error:
            raise VMStateError(
                f"device {self.idstr!r}: expected a state that KVM accepts, found another: {error}"
            ) from error
        return state

    def apply(self, state: State) -> None:
        """Give the virtual CPU a state that `parse` returned."""
        self._write(self._cpu, state)
        self._state = state

    def fetch(self) -> None:
        """Take the state from the virtual CPU, which has stopped."""
        self._state = self._read(self._cpu)

    def fetch_loaded(self) -> None:
        """Take the state from the virtual CPU, whose time stands still since it was loaded."""
        loaded, self._state = self._state, self._read(self._cpu)
        self._keep_time(loaded)

    def describe(self) -> dict[str, Any]:
        """Return its entry in the vmdescription."""
        return describe(self, self._state)

    @abstractmethod
    def _read(self, cpu: GuestCPU) -> State:
        """Read the state from a virtual CPU."""

    @abstractmethod
    def _write(self, cpu: GuestCPU, state: State) -> None:
        """Write a state to a virtual CPU; raises KVMError."""

    def _check(self, state: State) -> None:  # noqa: B027 - most need none
        """Raise VMStateError for a state that cannot be written."""

    def _keep_time(self, loaded: State) -> None:  # noqa: B027 - most have none
        """Replace what time alone has changed in the state by what was loaded."""


class StructureDevice(CPUDevice):
    """A part of the state that consists of structures of KVM, one for each pair of calls."""

    #: Ends of the calls' names, such as ``REGS`` of KVM_GET_REGS and KVM_SET_REGS, with the
    #: structure of each, in the order in which they are set.
    structures: ClassVar[dict[str, type[ctypes.Structure]]]
    _leaves: ClassVar[dict[str, list[_Leaf]]]

    def __init_subclass__(cls, name: str, version_id: int) -> None:
        cls._leaves = {
            call: sorted(
                _leaves(structure, _PREFIXES.get(call, "")), key=lambda leaf: leaf.wire_code
            )
            for call, structure in cls.structures.items()
        }
        fields = [
            Field(leaf.name, leaf.wire_code, leaf.count)
            for leaves in cls._leaves.values()
            for leaf in leaves
        ]
        assert len({field.name for field in fields}) == len(fields)
        cls.vmstate = VMStateDescription(name, version_id, version_id, tuple(fields))

    def _read(self, cpu: GuestCPU) -> State:
        state: State = {}
        for call, structure in self.structures.items():
            found = bytes(cpu.get(f"KVM_GET_{call}", structure()))
            for leaf in self._leaves[call]:
                numbers = np.frombuffer(found, leaf.code, leaf.count, leaf.offset)
                state[leaf.name] = numbers.astype(leaf.wire_code, copy=False)
        return state

    def _write(self, cpu: GuestCPU, state: State) -> None:
        for call, structure in self.structures.items():
            memory = bytearray(ctypes.sizeof(structure))
            whole = np.frombuffer(memory, np.uint8)
            for leaf in self._leaves[call]:
                numbers = state[leaf.name].astype(leaf.code)
                whole[leaf.offset : leaf.offset + numbers.nbytes] = numbers.view(np.uint8)
            cpu.put(f"KVM_SET_{call}", structure.from_buffer(memory))

    def _check(self, state: State) -> None:
        for leaves in self._leaves.values():
            for leaf in leaves:
                if leaf.code == "u2" and state[leaf.name].max() > 0xFFFF:
                    raise VMStateError(
                        f"device {self.idstr!r}, field {leaf.name!r}: expected 16 bits, found "
                        f"{state[leaf.name].max():#x}"
                    )


class CPURegisters(StructureDevice, name="kvm-cpu", version_id=1):
    """Registers, what is about to happen to the CPU, and whether it halts."""

    structures: ClassVar = {
        "SREGS": Sregs,
        "REGS": Regs,
        "XCRS": XCRs,
        "DEBUGREGS": DebugRegs,
        "VCPU_EVENTS": VCPUEvents,
        "MP_STATE": MPState,
    }


class ExtendedState(StructureDevice, name="kvm-fpu", version_id=1):
    """The FPU's and the vector registers' state, in the format of XSAVE."""

    structures: ClassVar = {"XSAVE": XSave}


class LocalAPIC(StructureDevice, name="kvm-apic", version_id=1):
    """The local APIC's page of registers, with its timer."""

    structures: ClassVar = {"LAPIC": LAPIC}

    def _keep_time(self, loaded: State) -> None:
        registers = self._state["regs"].copy()
        registers[_NOT_COMPARED] = loaded["regs"][_NOT_COMPARED]
        self._state["regs"] = registers


_MSRS_LIMIT = 64


class ModelSpecificRegisters(CPUDevice):
    """Model-specific registers: their numbers and values."""

    vmstate = VMStateDescription(
        "kvm-msrs",
        1,
        1,
        (
            Field("count", "u4"),
            Field("numbers", "u4", "count", _MSRS_LIMIT),
            Field("values", "u8", "count", _MSRS_LIMIT),
        ),
    )

    def _read(self, cpu: GuestCPU) -> State:
        return {
            "count": np.array([len(cpu.msrs)], np.uint32),
            "numbers": np.array(cpu.msrs, np.uint32),
            "values": np.array(cpu.get_msrs(), np.uint64),
        }

    def _write(self, cpu: GuestCPU, state: State) -> None:
        cpu.put_msrs(state["values"].tolist())

    def _check(self, state: State) -> None:
        expected, found = list(self._cpu.msrs), state["numbers"].tolist()
        if found != expected:
            raise VMStateError(
                f"device 'kvm-msrs', field 'numbers': expected {list(map(hex, expected))}, "
                f"found {list(map(hex, found))}"
            )

    def _keep_time(self, loaded: State) -> None:
        at = self._cpu.msrs.index(TSC)
        self._state["values"][at] = loaded["values"][at]


_KINDS = (CPURegisters, ExtendedState, LocalAPIC, ModelSpecificRegisters)


class HeldState:
    """A device's state without a virtual CPU, for readers of streams; zero at first."""

    instance_id = 0

    def __init__(self, vmstate: VMStateDescription) -> None:
        self.vmstate = vmstate
        self._state: State = {
            each.name: np.zeros(each.count if isinstance(each.count, int) else 0, each.code)
            for each in vmstate.fields
        }

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

    def save(self) -> bytes:
        """Encode its state."""
        return self.vmstate.save(self._state)

    def parse(self, version_id: int) -> StateParser:
        """Decode a state."""
        return self.vmstate.parse(version_id)

    def apply(self, state: State) -> None:
        """Hold a state that `parse` returned."""
        self._state = state

    def describe(self) -> dict[str, Any]:
        """Return its entry in the vmdescription."""
        return describe(self, self._state)


def describe(device: CPUDevice | HeldState, state: State) -> dict[str, Any]:
    """Return a device's entry in the vmdescription."""
    return {
        "name": device.idstr,
        "instance_id": device.instance_id,
        "vmsd_name": device.idstr,
        "version": device.version_id,
        "fields": device.vmstate.describe(state),
    }


def held_states() -> tuple[HeldState, ...]:
    """Make the devices of `cpu_devices` without a virtual CPU."""
    return tuple(HeldState(kind.vmstate) for kind in _KINDS)


def cpu_devices(cpu: GuestCPU, spare: Callable[[], GuestCPU]) -> tuple[CPUDevice, ...]:
    """Make the devices of a virtual CPU, in the order in which they are saved and loaded."""
    return tuple(kind(cpu, spare) for kind in _KINDS)
