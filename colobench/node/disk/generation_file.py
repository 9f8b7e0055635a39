"""An image together with what it is: FILE.generation, which is on disk before it is true.

While a guest runs on the image, each cluster is noted before it is changed, in a small file
FILE.changed that is mapped into memory: after SIGKILL the kernel still has what was noted.
"""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from colobench.block.backend import BlockBackend, BlockData
from colobench.block.clusters import ClusterSet, cluster_count
from colobench.block.generation import (
    TEXT_MAX,
    Generation,
    ImageEvent,
    ImageState,
    InvalidGeneration,
    checkpoint_text,
    read_generation,
)
from colobench.errors import LocalError
from colobench.node.disk.faults import FaultRule, FaultyBackend
from colobench.node.disk.image import FileImage
from colobench.node.disk.volatile_cache import VolatileCache

GENERATION_SUFFIX: Final = ".generation"
CHANGED_SUFFIX: Final = ".changed"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
#: Bytes of FILE.changed before its clusters: the generation since which they have changed.
_HEADER: Final = 64


def new_generation() -> str:
    """Return a random identifier for a generation."""
    return uuid.uuid4().hex


def load_generation(path: str, size: int) -> Generation | None:
    """Read what an image is, or was when its node was killed.

    Parameters
    ----------
    path
        The image's real path.
    size
        Its size in bytes.

    Returns
    -------
    Generation or None
        None if nothing is known of the image.

    Raises
    ------
    LocalError
        If FILE.generation cannot be read, is none, or is of a disk of another size.
    """
    beside = path + GENERATION_SUFFIX
    try:
        with open(beside, "rb") as file:
            text = file.read(TEXT_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalError(f"{beside}: cannot be read: {error.strerror}") from error
    try:
        generation = read_generation(text.decode())
    except (InvalidGeneration, UnicodeDecodeError) as error:
        raise InvalidGeneration(f"{beside}: {error}") from error
    if generation.size != size:
        raise InvalidGeneration(
            f"{beside}: expected the generation of an image of {size} bytes, "
            f"found one of {generation.size}"
        )
    generation = generation.read_in(boot_identifier())
    if generation.state is ImageState.IN_USE and generation.changed is not None:
        return replace(generation, changed=_load_changed(path, generation))
    return generation


class DiskImage:
    """An image that is open for writing, and what it is.

    Its owner tells it each event, one at a time. As a backend it is a disk for several threads.
    While a guest runs on it, a cluster is noted before it is changed. `file` is the same image
    without notes, for the writes of a copy.

    Parameters
    ----------
    path, size
        As in `FileImage`.
    cache
        Class of a cache on top of the image, or None for that of the kernel alone.

    Attributes
    ----------
    file
        The image, below a cache if there is one.
    generation
        What it is now.
    found
        What it was when it was opened.

    Raises
    ------
    LocalError
        If the image cannot be opened, or FILE.generation is not readable.
    """

    def __init__(
        self, path: str, size: int | None = None, cache: type[VolatileCache] | None = None
    ) -> None:
        file = FileImage(path, size)
        self.file: FileImage | VolatileCache = file if cache is None else cache(file)
        # A volatile cache ends with this process, as the kernel's does with the machine's boot.
        self._boot = boot_identifier() if cache is None else new_generation()
        #: Descriptor of FILE.generation, once it was written, and the clusters of FILE.changed.
        self._text = -1
        self._noted: ClusterSet | None = None
        try:
            # One that lies beside a file that has just been made is that of another file.
            known = None if file.created else load_generation(file.path, file.size)
        except BaseException:
            self.file.close()
            raise
        self._backend: BlockBackend = self.file
        self.found = known or Generation(new_generation(), self.file.size)
        self.generation = self.found

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.file.size

    def on(
        self, event: ImageEvent, *, identifier: str = "", checkpoint: int | None = None
    ) -> Generation:
        """Take in an event, and return once FILE.generation tells it.

        COMMIT is written in place and not flushed, so that it costs one system call: it survives
        this process, but not the machine.

        Parameters
        ----------
        event
            The event. Of the guest's writes none may be in flight at PAIRED and at CLEAN_END.
        identifier
            The generation that begins, by default a random one. For PAIRED both nodes give the
            same one.
        checkpoint
            Number of the checkpoint, of COMMIT.

        Returns
        -------
        Generation
            What the image is now.

        Raises
        ------
        WrongImageState
            If the image's state does not allow it; nothing was written.
        LocalError
            If it cannot be written.
        """
        after = self.generation.on(
            event, identifier=identifier or new_generation(), checkpoint=checkpoint
        )
        if event is ImageEvent.COMMIT and self._text >= 0:
            self._write_in_place(checkpoint_text(checkpoint))
            self.generation = after
        else:
            self._replace(after)
        return self.generation

    def set_faults(self, rules: Sequence[FaultRule]) -> None:
        """Let requests meet rules from now on, below the notes; none for no faults."""
        self._backend = FaultyBackend(self.file, rules) if rules else self.file

    def is_prompt(self) -> bool:
        """Say whether no request is late on purpose."""
        return self._backend is self.file

    def note(self, clusters: ClusterSet) -> None:
        """Note clusters before something else than the guest changes them: a merge of layers."""
        changed = self.generation.changed
        if changed is None:
            return
        if changed is self._noted:
            changed.update(clusters)
        else:
            self._replace(replace(self.generation, changed=changed.union(clusters)))

    def read(self, offset: int, length: int) -> bytes:
        """Read."""
        return self._backend.read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Note the clusters, then write."""
        self._will_change(offset, len(data))
        self._backend.write(offset, data, fua)

    def flush(self) -> None:
        """Flush."""
        self._backend.flush()

    def discard(self, offset: int, length: int) -> None:
        """Note the clusters, then discard."""
        self._will_change(offset, length)
        self._backend.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Note the clusters, then write zeros."""
        self._will_change(offset, length)
        self._backend.write_zeroes(offset, length)

    def extents(self, offset: int, length: int, limit: int) -> list[tuple[int, bool]]:
        """Return the file's extents."""
        return self.file.extents(offset, length, limit)

    def close(self) -> None:
        """Close the image. Without CLEAN_END before, it is left as by a kill."""
        if self._text >= 0:
            os.close(self._text)
        self._text = -1
        self.file.close()

    def _will_change(self, offset: int, length: int) -> None:
        # What a primary writes here, its own image has noted.
        if self._noted is not None:
            self._noted.touch(offset, length)

    def _write_in_place(self, beginning: str) -> None:
        try:
            os.pwrite(self._text, beginning.encode(), 0)
        except OSError as error:
            raise self._unwritable(error) from error

    def _replace(self, generation: Generation) -> None:
        """Write what the image is now; while a guest uses it, its clusters are in FILE.changed."""
        generation = replace(generation, boot=self._boot)
        in_use = generation.state is ImageState.IN_USE
        try:
            if in_use and generation.changed is not self._noted:
                noted = _note(self.file.path, generation)
                generation = replace(generation, changed=noted)
            descriptor = _write_aside(
                self.file.path + GENERATION_SUFFIX, generation.to_text().encode()
            )
            if not in_use:
                with suppress(FileNotFoundError):
                    os.unlink(self.file.path + CHANGED_SUFFIX)
        except OSError as error:
            raise self._unwritable(error) from error
        if self._text >= 0:
            os.close(self._text)
        self._text, self.generation = descriptor, generation
        self._noted = generation.changed if in_use else None

    def _unwritable(self, error: OSError) -> LocalError:
        return LocalError(
            f"{self.file.path}{GENERATION_SUFFIX}: cannot be written: {error.strerror}"
        )


def _note(path: str, generation: Generation) -> ClusterSet | None:
    """Write FILE.changed; returns its clusters, mapped, so that a change of the set is noted."""
    if generation.changed is None:
        return None
    count = cluster_count(generation.size)
    descriptor = _write_aside(path + CHANGED_SUFFIX, _header(generation), _HEADER + count)
    try:
        memory = memoryview(mmap.mmap(descriptor, _HEADER + count))[_HEADER:]
    finally:
        os.close(descriptor)
    noted = ClusterSet.over(generation.size, memory)
    noted.update(generation.changed)
    return noted


def _header(generation: Generation) -> bytes:
    return f"{generation.peer}\n".encode().ljust(_HEADER, b"\0")


def _load_changed(path: str, generation: Generation) -> ClusterSet | None:
    """Read the clusters that were noted while the image was in use; None if that is not whole."""
    count = cluster_count(generation.size)
    try:
        with open(path + CHANGED_SUFFIX, "rb") as file:
            data = file.read(_HEADER + count + 1)
    except OSError:
        return None
    if len(data) != _HEADER + count or data[:_HEADER] != _header(generation):
        return None
    return ClusterSet.over(generation.size, memoryview(data)[_HEADER:]).copy()


def _write_aside(path: str, data: bytes, length: int | None = None) -> int:
    """Write a file under another name, flush it, and replace the old one; it stays open.

    Only the process that has locked the image writes beside it, so one name is enough. A file with
    a length is for this boot of the machine only, which needs no flush.
    """
    aside = f"{path}.new"
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o666)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        if length is not None:
            # A store into a mapped hole ends the process if the file system is full by then.
            os.posix_fallocate(descriptor, 0, length)
        else:
            os.fsync(descriptor)
        os.replace(aside, path)
        if length is None:
            _flush_directory(os.path.dirname(path))
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(aside)
        raise
    return descriptor


def _flush_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def boot_identifier() -> str:
    """Return the identifier of the machine's boot, or "" where there is none."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""
