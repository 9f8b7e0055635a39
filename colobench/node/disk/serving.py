"""Images served by NBD to any program: `colobench disk serve`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from colobench.block.backend import BlockBackend
from colobench.block.generation import ImageEvent
from colobench.block.nbd.format import encode_name
from colobench.block.nbd.uri import NBDLocation
from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.disk.generation_file import GENERATION_SUFFIX, DiskImage
from colobench.node.disk.image import FileImage
from colobench.node.disk.nbd_server import NBDServer


@contextmanager
def serve_images(
    paths: Sequence[str], address: Address, *, read_only: bool = False
) -> Iterator[list[NBDLocation]]:
    """Serve image files while a context lasts.

    Parameters
    ----------
    paths
        Paths of the images. The name of each export is that of its file.
    address
        Address at which to listen.
    read_only
        Whether requests that write are refused.

    Yields
    ------
    list
        Place of each export.

    Raises
    ------
    LocalError
        If two files have the same name, a name is not in UTF-8, an image cannot be opened or may
        not be written, or the address cannot be had.
    """
    names = [os.path.basename(path) for path in paths]
    for name in names:
        encode_name(name)
        if names.count(name) > 1:
            raise LocalError(f"disk serve: expected files of different names, found {name} twice")
    with ExitStack() as stack:
        exports: dict[str, BlockBackend] = {
            name: _open(path, read_only, stack) for name, path in zip(names, paths, strict=True)
        }
        listener, found = address.listen()
        stack.callback(found.remove)
        stack.enter_context(NBDServer(exports, listener, read_only=read_only))
        yield [NBDLocation(_absolute(found), name) for name in names]


def _absolute(address: Address) -> str:
    """Write an address so that it means the same in any directory."""
    if isinstance(address.target, str):
        return f"unix:{os.path.abspath(address.target)}"
    return str(address)


def _open(path: str, read_only: bool, stack: ExitStack) -> BlockBackend:
    """Open an image until the stack closes; one that a guest has used learns of the changes."""
    if read_only or not os.path.exists(os.path.realpath(path) + GENERATION_SUFFIX):
        image = FileImage(path, read_only=read_only)
        stack.callback(image.close)
        stack.callback(image.flush)
        return image
    disk = DiskImage(path)
    stack.callback(disk.close)
    disk.on(ImageEvent.OPENED_BY_GUEST)

    def end() -> None:
        disk.flush()
        disk.on(ImageEvent.CLEAN_END)

    stack.callback(end)
    return disk
