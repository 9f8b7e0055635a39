"""Notebook 10: a real QEMU's checkpoints, and a guest that comes back from a file."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from colobench.kernels.page_records import PAGE_RECORD_BYTES
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, judge_number, near, right, wrong
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import NumberAnswer, PredictedExperiment
from colobench.lab.studies.real_vm import real_vm
from colobench.memory.ram import PAGE_SIZE
from colobench.peers.recordings import PAGES, RAM_MIB
from colobench.wire import savevm
from colobench.wire.format import SectionType


def _ram_bytes() -> int:
    """Count the bytes from the END of RAM to EOF, as they are encoded."""
    begin = savevm.ram_section_begin(SectionType.END, savevm.RAM_SECTION_ID)
    finish = savevm.ram_section_finish(savevm.RAM_SECTION_ID)
    return len(begin) + PAGES * PAGE_RECORD_BYTES + len(finish) + len(savevm.EOF)


def _judge_bytes(answer: Any) -> Feedback:
    found = _ram_bytes()
    return judge_number(
        answer,
        found,
        why="A record of 8 + 4,096 bytes for each page, and 5 + 8 + 5 + 1 bytes around them.",
        hints={
            PAGES * PAGE_SIZE: "These are the pages. Each has a header, and the section has ends.",
            PAGES * PAGE_RECORD_BYTES: "These are the records. The section has two ends, and EOF.",
            found - len(savevm.EOF): "EOF follows the section, one byte.",
        },
        otherwise="Add up the record of each page, and the 19 bytes around them all.",
    )


#: Factors between guess and measurement up to which a guess is right, and near.
RIGHT, NEAR = 2.0, 5.0


def _migrated_kilobytes() -> float:
    """Let a real VM migrate, and count the bytes up to the first checkpoint."""
    with closing(real_vm()) as vm:
        vm.run(1)
        [migration] = [each for each in vm.receiver.checkpoints if not each.number]
        return migration.bytes / 1000


def _judge_migration(answer: float, outcome: float) -> Feedback:
    why = (
        f"It sent {outcome:,.0f} kB. A page that is zero is a record of a few bytes. Pages that "
        "the guest writes meanwhile are sent again, and the devices come last."
    )
    factor = max(answer / outcome, outcome / answer) if answer > 0 else float("inf")
    if factor <= RIGHT:
        return right(why)
    return near(why) if factor <= NEAR else wrong(why)


LESSON = Lesson(
    "10",
    exercises=(
        Exercise(
            "10.1",
            f"QEMU sends {PAGES} pages of one block in a checkpoint, none of them zero, each in a "
            "record with CONTINUE. How many bytes is that, from the section's first byte to EOF?",
            "a number of bytes",
            f'cb.exercise("10.1").check(5 + {PAGES} * (8 + 4096) + 8 + 5 + 1)',
            _judge_bytes,
            "Type and section id; for each page a header with offset and flags, and its bytes; "
            "EOS; the footer; EOF.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "10.1",
            f"The VM has {RAM_MIB} MiB of RAM. Its guest has written {PAGES} pages, a few hold "
            "firmware, and the others are zero. How many kB (1,000 bytes) does the migration send "
            "before the first checkpoint?",
            NumberAnswer("kB"),
            _migrated_kilobytes,
            _judge_migration,
        ),
    ),
)
