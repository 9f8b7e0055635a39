"""Saver of committed checkpoints: a thread that keeps the last one in a file, beside the pauses.

Two files take turns: one has the name, the other is aside and takes the pages that have changed
since it had the name. Then it is made durable, and both exchange their names. So the name always
stands for one whole checkpoint.

Pages are written from the RAM cache, while it has the committed checkpoint. That ends with the next
checkpoint's pages, so the answer to the primary's next request waits until they are written. The
primary's guest runs during that wait: it stops only after the answer.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from colobench.errors import LocalError
from colobench.kernels import bitmap
from colobench.memory.ram import PageMemory
from colobench.memory.tracker import Words
from colobench.node.receive.image import Image, ImageLayout
from colobench.node.receive.records import SavedCheckpoint
from colobench.node.receive.replacing import (
    exchange,
    is_locked,
    new_aside,
    synchronize_directory,
)

_ANOTHER: Final = "one in which another receiver keeps its checkpoints"


class _Commit(NamedTuple):
    """A committed checkpoint: its number, and its devices with all that follows them."""

    number: int
    devices: bytes


class CheckpointSaver:
    """Thread that keeps the last committed checkpoint in a file.

    Parameters
    ----------
    file
        The file.
    said
        Function that is called with a record of each checkpoint that was saved, or was not, in
        this thread.

    Attributes
    ----------
    number
        Number of the checkpoint that is in the file; None if there is none yet.

    Raises
    ------
    LocalError
        If the file is none that can be replaced, or another receiver keeps its checkpoints there.
    """

    def __init__(self, file: Path, said: Callable[[SavedCheckpoint], object]) -> None:
        self._file, self._said = Path(os.path.realpath(file)), said
        if self._file.exists() and not self._file.is_file():
            raise LocalError(f"{file}: expected a file that can be replaced, found another kind")
        if is_locked(self._file):
            raise LocalError(f"{file}: expected a file of our own, found {_ANOTHER}")
        self._changed = threading.Condition()
        self._commit: _Commit | None = None
        self._ended = False
        #: The file aside, and its path; None until there is one.
        self._aside: tuple[Image, Path] | None = None
        self._named: Image | None = None
        self._memory: PageMemory | None = None
        self._layout: ImageLayout | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self.number: int | None = None

    def start(self, layout: ImageLayout, memory: PageMemory) -> None:
        """Start the thread.

        Parameters
        ----------
        layout
            Places in the file.
        memory
            RAM cache from which pages are written.

        Raises
        ------
        LocalError
            If no thread can be started.
        """
        self._layout, self._memory = layout, memory
        thread = threading.Thread(target=self._run, name="saver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise LocalError(f"saver: {error}") from error
        self._thread = thread

    def committed(self, number: int, pages: Words, devices: bytes) -> None:
        """Save a checkpoint; the last one has been captured.

        Parameters
        ----------
        number
            Number of the checkpoint.
        pages
            uint64, a bit for each page of the RAM cache that has changed.
        devices
            Bytes of the file behind RAM.

        Raises
        ------
        LocalError
            If the thread has ended by an error, as one of the function that it calls.
        """
        with self._changed:
            if self._failure is not None:
                words = f"{type(self._failure).__name__}: {self._failure}"
                raise LocalError(f"saver: expected it to go on, found {words}")
            for image in (self._named, self._aside and self._aside[0]):
                if image is not None:
                    bitmap.union(image.lacking, pages)
            self._commit = _Commit(number, devices)
            self._changed.notify_all()

    def wait_until_captured(self) -> None:
        """Wait until the RAM cache may change."""
        with self._changed:
            self._changed.wait_for(lambda: self._commit is None or self._ended)

    def finish(self) -> None:
        """Save what was committed, end the thread, and remove the file aside."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._named is not None:
            self._named.close()
        self._drop_aside()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._commit is not None or self._ended)
                    commit = self._commit
                if commit is None:
                    return
                self._said(self._try_to_save(commit))
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _try_to_save(self, commit: _Commit) -> SavedCheckpoint:
        began = time.perf_counter()
        length, error = 0, ""
        try:
            length = self._save(commit)
        except (OSError, MemoryError) as failed:
            error = getattr(failed, "strerror", None) or str(failed) or type(failed).__name__
        finally:
            self._captured(commit)
        spent = 1000 * (time.perf_counter() - began)
        return SavedCheckpoint(commit.number, str(self._file), length, spent, error, self.number)

    def _save(self, commit: _Commit) -> int:
        if not (self._named and self._named.is_at(self._file)) and is_locked(self._file):
            raise OSError(errno.EBUSY, f"expected a file of our own, found {_ANOTHER}")
        if self._aside is not None and not self._aside[0].is_ours(self._aside[1]):
            # A reader has opened it by its name, and reads on in the old file.
            self._drop_aside()
        image, path = self._aside or self._new_aside()
        image.write_pages()
        self._captured(commit)
        length = image.write_devices(commit.devices)
        exchanged = self._named is not None and exchange(path, self._file)
        if not exchanged:
            os.replace(path, self._file)
        with self._changed:
            old, self._named, self._aside = self._named, image, None
            if old is not None and exchanged:
                self._aside = (old, path)
            elif old is not None:
                old.close()
        self.number = commit.number
        synchronize_directory(self._file.parent)
        return length

    def _captured(self, commit: _Commit) -> None:
        with self._changed:
            # Behind the capture, the next one may wait already.
            if self._commit is commit:
                self._commit = None
            self._changed.notify_all()

    def _drop_aside(self) -> None:
        with self._changed:
            aside, self._aside = self._aside, None
        if aside is not None:
            aside[0].close()
            with suppress(OSError):
                aside[1].unlink()

    def _new_aside(self) -> tuple[Image, Path]:
        assert self._layout is not None
        assert self._memory is not None
        descriptor, path = new_aside(self._file)
        try:
            image = Image(descriptor, self._layout, self._memory)
        except BaseException:
            path.unlink()
            raise
        with self._changed:
            self._aside = (image, path)
        return image, path
