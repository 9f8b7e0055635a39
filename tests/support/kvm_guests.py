"""Skipping of tests, by name, where KVM cannot be used."""

from __future__ import annotations

import pytest

from colobench.guest.programs import Program
from colobench.memory.kvm import KVMUnavailable, require_kvm


def _reason() -> str:
    try:
        require_kvm()
    except KVMUnavailable as error:
        return str(error)
    return ""


REASON = _reason()
needs_kvm = pytest.mark.skipif(bool(REASON), reason=REASON)
#: Programs of KVM's guests that write RAM.
KVM_PROGRAMS = (Program.KVM_UNIFORM, Program.KVM_HOTCOLD, Program.KVM_SEQUENTIAL)
