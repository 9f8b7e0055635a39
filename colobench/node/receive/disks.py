"""Disks of a real QEMU primary: served to it over NBD, and kept at the checkpoint in the file.

The primary copies its disk to the export, and from then on writes to both (``quorum``). The image
has all that it has written. What undoes it, back to each checkpoint that the file may have, is in
an `UndoChain`. So the file says which checkpoint is the disks', and nothing else does: at the end,
and at the next start after SIGKILL, what was written after that checkpoint is undone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from colobench.block.backend import BlockError
from colobench.block.generation import ImageEvent, ImageState
from colobench.block.nbd.uri import NBDLocation
from colobench.errors import LocalError, RemoteError
from colobench.guest.disk_settings import DiskSettings, check_disks
from colobench.node.address import Address
from colobench.node.disk.following import FollowingDisk
from colobench.node.disk.generation_file import DiskImage, new_generation
from colobench.node.disk.nbd_server import NBDServer
from colobench.node.disk.undo_chain import UNDO_CHECKPOINTS, UndoChain, remove_undo, undo_to
from colobench.node.receive.mark import DiskMark, read_mark
from colobench.node.receive.records import RestoredDisks


class OtherCheckpoint(LocalError):
    """A file that has no checkpoint of a disk that was left in the middle of one."""


class NotSaved(LocalError):
    """Checkpoints that are not in the file, although the disks would soon forget older ones."""


class DiskNotFollowed(RemoteError):
    """A primary that does not write to the disks here, or no longer does."""


class ReceivedDisks:
    """Disks that a primary writes to, and their images.

    Parameters
    ----------
    disks
        For each disk ``FILE[,size=SIZE]``: an image, made with holes if it is missing.
    address
        Address of the server: ``unix:PATH`` or ``tcp:HOST:PORT``.
    on_restored
        Function that is called when disks have become those of the checkpoint in the file.

    Attributes
    ----------
    locations
        Places of the exports ``disk0``, ``disk1``, … while they are served.

    Raises
    ------
    LocalError
        If a disk has another form or occurs twice, or the address is none.
    """

    def __init__(
        self,
        disks: Sequence[str],
        address: str,
        on_restored: Callable[[RestoredDisks], object] = lambda restored: None,
    ) -> None:
        self._settings = [_parse(disk) for disk in disks]
        check_disks(self._settings)
        self._address, self._on_restored = Address.parse(address), on_restored
        self._generation = new_generation()
        self._images: list[_CopiedImage] = []
        self._following: list[FollowingDisk] = []
        self._chains: list[UndoChain] = []
        #: Clients that forward the primary's writes, since the migration.
        self._clients: list[object] = []
        self._server: NBDServer | None = None
        self._error: BlockError | None = None
        self.locations: list[NBDLocation] = []

    def serve(self, file: Path) -> None:
        """Open the images, and serve them.

        Images that a killed receiver has left become those of the checkpoint in the file first.

        Parameters
        ----------
        file
            File of the guest's state.

        Raises
        ------
        OtherCheckpoint
            If such an image is not one of the file's checkpoint.
        LocalError
            If an image cannot be opened, is in use or has another size, or the address cannot be
            had.
        """
        with ExitStack() as stack:
            for disk in self._settings:
                self._images.append(image := _CopiedImage(disk.image, disk.size))
                stack.callback(image.close)
            self._restore(file)
            limit = max(image.size for image in self._images)
            self._following = [FollowingDisk(image, limit, self._failed) for image in self._images]
            listener, served_at = self._address.listen()
            names = [f"disk{number}" for number in range(len(self._images))]
            exports = {
                name: disk.primary for name, disk in zip(names, self._following, strict=True)
            }
            self._server = NBDServer(exports, listener)
            self._server.start()
            self._address = served_at
            self.locations = [NBDLocation(str(served_at), name) for name in names]
            stack.pop_all()

    def begin(self) -> None:
        """Keep old bytes from now on: the disks are equal, and the primary's guest stands still.

        Raises
        ------
        DiskNotFollowed
            If not each disk has one client.
        LocalError
            If that cannot be written down.
        """
        assert self._server is not None
        for location in self.locations:
            clients = self._server.connected(location.export)
            if len(clients) != 1:
                raise DiskNotFollowed(
                    f"{location.export}: expected one connection, by which the primary's quorum "
                    f"writes to it, found {len(clients)}"
                )
            self._clients += clients
        for image, disk in zip(self._images, self._following, strict=True):
            image.copy_begins()
            self._chains.append(chain := UndoChain(image.file.path, image.size, self._generation))
            disk.start_layers(chain)
            image.on(ImageEvent.PAIRED, identifier=self._generation)

    def check(self, number: int, saved: int | None) -> None:
        """Check that a checkpoint may come.

        Parameters
        ----------
        number
            Number of the checkpoint.
        saved
            Number of the one that is in the file; None if there is none yet.

        Raises
        ------
        DiskNotFollowed
            If the primary's quorum goes on without a disk, of which it tells nobody.
        NotSaved
            If the disks could not go back to the checkpoint in the file.
        LocalError
            If a disk has failed.
        """
        if self._error is not None:
            raise LocalError(f"disks: {self._error}") from self._error
        assert self._server is not None
        for location, client in zip(self.locations, self._clients, strict=True):
            if client not in self._server.connected(location.export):
                raise DiskNotFollowed(
                    f"{location.export}: expected the primary's quorum to write to it until the "
                    "end, found its connection closed"
                )
        oldest = number - UNDO_CHECKPOINTS + 1
        if oldest >= 0 and (saved is None or saved < oldest):
            raise NotSaved(
                f"disks: expected checkpoint {oldest} or a later one in the file before checkpoint "
                f"{number} is committed, found {'none' if saved is None else saved}"
            )

    def commit(self) -> None:
        """Begin the next checkpoint's writes; `check` has been called.

        Raises
        ------
        BlockError
            If that cannot be written down.
        """
        for disk in self._following:
            disk.empty_layers()

    def mark(self, checkpoint: int) -> bytes:
        """Give the end of a file with a checkpoint's state."""
        return DiskMark(self._generation, checkpoint).to_bytes()

    def end(self, file: Path, *, is_saved: bool) -> None:
        """Serve no more, and undo what was written after the checkpoint in the file.

        Parameters
        ----------
        file
            File of the guest's state.
        is_saved
            Whether it has a checkpoint of this session. Otherwise the images are left as by a kill.

        Raises
        ------
        LocalError
            If an image cannot be restored.
        """
        for disk in self._following:
            disk.stop()
        if self._server is not None:
            self._server.close()
            self._address.remove()
        for chain in self._chains:
            chain.close()
        try:
            if is_saved:
                self._restore(file)
        finally:
            for image in self._images:
                image.close()
            self._images, self._following, self._server = [], [], None

    def _restore(self, file: Path) -> None:
        restored = bring_together(self._images, file)
        if restored is not None:
            self._on_restored(restored)

    def _failed(self, error: BlockError) -> None:
        # The primary's quorum tolerates it, and tells nobody.
        self._error = self._error or error


class _CopiedImage(DiskImage):
    """An image that is an incomplete copy from its first change on, until the migration."""

    def __init__(self, path: str, size: int | None) -> None:
        super().__init__(path, size)
        self._beginning = threading.Lock()
        self._has_begun = False

    def copy_begins(self) -> None:
        """Note that it is no longer what it was; any thread may call it."""
        with self._beginning:
            if not self._has_begun:
                self.on(ImageEvent.COPY_BEGINS)
                self._has_begun = True

    def _will_change(self, offset: int, length: int) -> None:
        if not self._has_begun:
            self.copy_begins()


def bring_together(images: Sequence[DiskImage], file: Path) -> RestoredDisks | None:
    """Undo on disks what their primary has written after the checkpoint in a file.

    Parameters
    ----------
    images
        The disks. Those that no receiver was writing when it ended are left as they are.
    file
        File of the guest's state.

    Returns
    -------
    RestoredDisks or None
        None if there was no disk to restore.

    Raises
    ------
    OtherCheckpoint
        If a disk is not one of the file's checkpoint.
    LocalError
        If the undo is not there, or an image fails.
    """
    left = [image for image in images if image.generation.state is ImageState.FOLLOWING]
    if not left:
        return None
    mark = read_mark(file)
    for image in left:
        _check_mark(image, mark, file)
    assert mark is not None
    undone = sum(_restore(image, mark) for image in left)
    names = [image.file.path for image in left]
    return RestoredDisks(mark.checkpoint, str(file), names, undone)


def bring_image_together(path: str, file: Path) -> int:
    """Do `bring_together` for one image that no process has open; give the bytes undone."""
    image = DiskImage(path)
    try:
        if image.generation.state is not ImageState.FOLLOWING:
            raise LocalError(
                f"{path}: expected an image that a receiver has left while a primary wrote to it, "
                f"found {image.generation.state.value}"
            )
        restored = bring_together([image], file)
        assert restored is not None
        return restored.bytes
    finally:
        image.close()


def _check_mark(image: DiskImage, mark: DiskMark | None, file: Path) -> None:
    expected = image.generation.identifier
    found = "none" if mark is None else f"generation {mark.generation}"
    if mark is None or mark.generation != expected:
        raise OtherCheckpoint(
            f"{file}: expected a checkpoint of {image.file.path}, generation {expected}, found "
            f"{found}; the disk has writes of no one moment until it is undone with the right file"
        )


def _restore(image: DiskImage, mark: DiskMark) -> int:
    path = image.file.path
    undone = undo_to(path, mark.generation, mark.checkpoint, image.file.write)
    image.flush()
    image.on(ImageEvent.COMMIT, checkpoint=mark.checkpoint)
    image.on(ImageEvent.CLEAN_END)
    remove_undo(path)
    return undone


def _parse(text: str) -> DiskSettings:
    disk = DiskSettings.parse(text)
    if disk.replica != f"{disk.image}.replica":
        raise LocalError(
            f"disk {disk.image}: expected FILE[,size=SIZE], as the other image is the primary's, "
            "found a replica"
        )
    return disk
