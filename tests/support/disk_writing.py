"""A guest of QEMU that writes a sector of its IDE disk in each round, and what such a disk has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from colobench.block.nbd.uri import NBDLocation
from colobench.block.request import SECTOR_SIZE
from colobench.guest.kvm.assembler import le16, le32
from colobench.peers.qemu import TIMEOUT, QEMUProcess

#: Size of the disk: 16 times 256 sectors, in clusters of 128.
DISK_BYTES = 4096 * SECTOR_SIZE


def _out(port: int, value: bytes) -> bytes:
    """Write a byte, which the instructions of `value` load into al, to a port."""
    return b"\x66\xba" + le16(port) + value + b"\xee"


def _wait(mask: int, jump: bytes) -> bytes:
    """Read the status register until the masked bits are right."""
    return b"\x66\xba" + le16(0x1F7) + b"\xec\xa8" + bytes([mask]) + jump + b"\xfb"


#: Instructions for `guest_image`. Round n writes the number n, 128 times, to sector_of(n).
WRITE_SECTOR = b"".join(
    [
        b"\x60\x89\xc6",  # pushad; mov esi, eax
        _out(0x3F6, b"\xb0\x02"),  # no interrupts
        _wait(0x80, b"\x75"),  # while it is busy
        _out(0x1F6, b"\xb0\xe0"),  # first disk, by logical block address
        _out(0x1F2, b"\xb0\x01"),  # one sector
        _out(0x1F3, b"\x89\xf0"),  # mov eax, esi
        _out(0x1F4, b"\x89\xf0\x24\x0f"),  # mov eax, esi; and al, 15
        _out(0x1F5, b"\x30\xc0"),  # xor al, al
        _out(0x1F7, b"\xb0\x30"),  # WRITE SECTORS
        _wait(0x08, b"\x74"),  # until it requests data
        b"\x66\xba" + le16(0x1F0) + b"\xb9" + le32(128) + b"\x89\xf0",
        b"\xef\xe2\xfd",  # out dx, eax; loop
        _wait(0x80, b"\x75"),
        b"\x61",  # popad
    ]
)


def sector_of(number: int) -> int:
    """Give the sector that a round writes."""
    return (number & 15) << 8 | number & 255


def disk_after(number: int) -> bytes:
    """Give the disk's bytes after a round."""
    disk = bytearray(DISK_BYTES)
    # A sector is written once in 256 rounds.
    for each in range(max(1, number - 255), number + 1):
        begin = sector_of(each) * SECTOR_SIZE
        disk[begin : begin + SECTOR_SIZE] = each.to_bytes(4, "little") * (SECTOR_SIZE // 4)
    return bytes(disk)


def disk_options(path: Path) -> tuple[str, ...]:
    """Give QEMU's options for a disk in a quorum of one, to which another image can be added."""
    drive = "if=none,id=disk,driver=quorum,read-pattern=fifo,vote-threshold=1"
    child = f"children.0.driver=raw,children.0.file.driver=file,children.0.file.filename={path}"
    return ("-drive", f"{drive},{child}", "-device", "ide-hd,drive=disk,bus=ide.0,unit=0")


def replicate(qemu: QEMUProcess, export: NBDLocation, driver: str) -> None:
    """Copy the disk to an export, and write to both from then on, until COLO or the end.

    Parameters
    ----------
    qemu
        The primary.
    export
        Place of the export, on a UNIX socket.
    driver
        Driver of the quorum's child above NBD. With ``replication`` the guest stands still at the
        end: what it wrote before COLO would be lost.
    """
    job = {"device": "disk", "mode": "existing", "format": "raw", "sync": "full"}
    qemu.execute("drive-mirror", **job, **{"job-id": "copy"}, target=str(export))
    wait_for(lambda: any(each["ready"] for each in qemu.execute("query-block-jobs")))
    qemu.execute("stop")
    qemu.execute("block-job-cancel", device="copy")
    wait_for(lambda: not qemu.execute("query-block-jobs"))
    server = {"type": "unix", "path": export.address.removeprefix("unix:")}
    child = {"driver": "nbd", "server": server, "export": export.export}
    mode = {"mode": "primary"} if driver == "replication" else {}
    node = {"node-name": "replica", "driver": driver, **mode, "file": child}
    qemu.execute("blockdev-add", **node)
    qemu.execute("x-blockdev-change", parent="disk", node="replica")
    if driver != "replication":
        qemu.execute("cont")


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
