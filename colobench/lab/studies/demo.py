"""The demonstration: the life of a pair from start to takeover, with proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from colobench.errors import LocalError
from colobench.lab.report.run_summary import compute_statistics
from colobench.lab.session.record import Records, check_all_are_kept
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.processes.hostinfo import describe_machine
from colobench.settings.checkpoint import Layout


def run_demo(
    session: Session,
    checkpoints: int,
    *,
    say: Callable[[str], None] = lambda step: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Run a pair through its life: checkpoints, SIGKILL in the middle of one, takeover.

    Parameters
    ----------
    session
        Session that was not started; it is closed at the end.
    checkpoints
        Number of checkpoints before the kill.
    say, progress
        Functions that are called with a description of each step, and with the number of
        checkpoints done and the total.

    Returns
    -------
    dict
        Summary, see `summarize`.

    Raises
    ------
    LocalError
        If the RAM of the session's guest does not follow from its seed, or old records are dropped.
    """
    check_all_are_kept(session.settings)
    program = session.settings.guest.program
    if not program.is_reproducible:
        raise LocalError(
            f"demo: expected a guest that can be run again, found {program.label}: its clients "
            "decide what is in its RAM"
        )
    say("starting two processes, migrating the running guest")
    with session:
        say(f"taking {checkpoints} checkpoints")
        session.run(checkpoints, progress=progress)
        say("killing the primary with half of a checkpoint sent")
        separated = session.settings.checkpoint.layout is Layout.SEPARATED
        killed = session.kill("primary", at="ram" if separated else "buffer")
        takeover = session.failover()
        say("comparing the survivor's RAM with a guest that was never migrated")
        replayed = session.verify()
        return summarize(session, session.records, killed, takeover, replayed)


def summarize(
    session: Session, records: Records, killed: Killed, takeover: TakeoverRecord, replayed: bool
) -> dict[str, Any]:
    """Summarize a run.

    Returns
    -------
    dict
        ``verified`` is true only if every checkpoint that was compared was equal, the primary was
        killed by SIGKILL, the secondary took over from the last committed checkpoint with exactly
        its state (where the secondary's guest stood still), its RAM is that of a guest that was
        never migrated, and its work went on. ``checkpoints_verified`` says how many checkpoints
        were compared. The others are measurements, the settings and the machine.
    """
    compared = [record.verified for record in records if record.verified is not None]
    checkpoint = session.settings.checkpoint
    # With verification on, nothing may pass because it was not looked at.
    comparable = len(records) if checkpoint.verify else 0
    stood_still = checkpoint.verify and checkpoint.variant == "v12"
    proofs = {
        "every_checkpoint_equal": len(compared) == comparable and all(compared),
        "killed_by_sigkill": killed.status == -9,
        "last_committed_checkpoint": takeover.checkpoint == len(records) == records[-1].number,
        "state_of_that_checkpoint": takeover.equal is (True if stood_still else None),
        "ram_of_a_guest_never_migrated": replayed,
        "work_goes_on": takeover.work_after > takeover.work_at_takeover,
    }
    began, link = session.began, session.link_use()
    return {
        "verified": all(proofs.values()),
        "checkpoints_verified": len(compared),
        **compute_statistics(records),
        "takeover_ms": takeover.takeover_ms,
        "takeover_checkpoint": takeover.checkpoint,
        "digest_equal": takeover.equal,
        "work_at_takeover": takeover.work_at_takeover,
        "work_after": takeover.work_after,
        "proofs": proofs,
        "killed": asdict(killed),
        "timeline": {
            "killed": killed.time - began,
            "told": takeover.told_at - began,
            "took_over": takeover.running_at - began,
            "observed": takeover.observed_at - began,
        },
        **({} if link is None else {"link": link.as_json()}),
        "settings": session.settings.as_json(),
        "machine": describe_machine(),
    }
