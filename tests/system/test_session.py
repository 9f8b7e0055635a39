"""Pairs of real processes: checkpoints that verify, nodes that are killed, survivors that go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import pytest

import pairs
from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.journal import SessionTimeout
from colobench.lab.session.node_pair import ColoExit
from colobench.lab.session.record import PHASES
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS
from colobench.processes.errors import QMPCommandError
from pairs import run_and_write, run_in_a_row
from share import SEED, amount, each_with_some

pytestmark = pytest.mark.usefixtures("nothing_left")

#: Kills at random moments for each way, half of each side.
KILLS = amount(2, 25)
CHECKPOINTS = amount(100, 1000)
FORMS = [
    {"layout": layout, "variant": variant, "transport": transport}
    for layout in ("separated", "buffered")
    for variant in ("v12", "upstream")
    for transport in ("unix", "tcp")
] + [
    {"layout": "separated", "variant": "upstream", "transport": "tcp", "encoding": "xbzrle"},
    {"layout": "buffered", "variant": "v12", "transport": "unix", "encoding": "xbzrle"},
]
#: Every transport and every tracker, all of which have to pass the same.
WAYS: dict[str, dict[str, Any]] = {
    "stream-marked": {"transport": "stream", "tracker": "marked"},
    "multifd-userfault": {"transport": "multifd", "multifd_channels": 2, "tracker": "userfault"},
    "memfd-shadow": {"transport": "memfd", "multifd_channels": 2, "tracker": "shadow"},
    "multifd+tcp-mprotect": {"transport": "multifd+tcp", "tracker": "mprotect"},
    "xbzrle-marked": {"encoding": "xbzrle", "tracker": "marked"},
}
every_way = pytest.mark.parametrize("way", WAYS)


def at_each(points: Sequence[str]) -> pytest.MarkDecorator:
    """Parametrize a test by each point and some of the ways."""
    return pytest.mark.parametrize(("at", "way"), each_with_some(points, tuple(WAYS)))


def session(**settings: Any) -> Session:
    """Make a session with a small guest that writes a lot."""
    return Session(**({"ram": "8M", "writes_per_tick": 40} | settings))


@pytest.fixture
def way() -> str:
    """Name the way of a test that is not `every_way`."""
    return "stream-marked"


@pytest.fixture
def pair(way: str) -> Iterator[Session]:
    with session(delay=None, **WAYS[way]) as pair:
        yield pair


def assert_survived(pair: Session, takeover: TakeoverRecord, role: str) -> None:
    """Hold a takeover to everything that can be known of it."""
    pairs.assert_survived(pair, takeover, role)
    status = pair.nodes[role].execute("query-colo-status")
    assert status == {"mode": "none", "last-mode": role, "reason": "request"}
    assert pair.nodes[role].execute("query-status") == {"status": "running", "running": True}


# -- Checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "variant"), each_with_some(tuple(WAYS), ("v12", "upstream")))
def test_checkpoints_in_a_row_verify_equal(way: str, variant: str) -> None:
    with session(delay=0, variant=variant, **WAYS[way]) as pair:
        records = run_in_a_row(pair, CHECKPOINTS)
        assert all(record.verified for record in records)
        assert sum(record.pages for record in records) > CHECKPOINTS
        encoded = sum(record.encoded_pages for record in records)
        assert (encoded > 0) == ("xbzrle" in way)


@pytest.mark.parametrize(
    ("form", "guest"),
    [
        pytest.param(form, guest, id="-".join([guest, *form.values()]))
        for form, guest in each_with_some(FORMS, ("hotcold", "sequential"))
    ],
)
def test_every_form_verifies_and_survives(form: dict[str, str], guest: str) -> None:
    with session(**form, guest=guest, delay=5) as pair:
        assert all(record.verified for record in pair.run(20))
        separated = form["layout"] == "separated"
        torn = pair.hold("primary", "ram" if separated else "buffer")
        killed = pair.kill("primary")
        takeover = pair.failover()
        assert killed.status == -signal.SIGKILL
        # A report of the one before may have been on its way.
        assert killed.committed <= takeover.checkpoint == torn - 1
        assert_survived(pair, takeover, "secondary")


def test_idle_guest_makes_empty_checkpoints() -> None:
    with session(guest="idle", delay=0) as idle:
        records = idle.run(20)
        assert {(record.pages, record.verified) for record in records} == {(0, True)}


def test_phases_add_up_to_the_pause(pair: Session) -> None:
    for record in pair.run(20):
        phases = [getattr(record, f"{phase}_ms") for phase in PHASES if phase != "request"]
        assert sum(phases) + record.verify_ms == pytest.approx(record.pause_ms, abs=1e-6)
        assert min(phases) > -0.01


def test_checkpoints_come_only_on_request_if_there_is_no_delay(pair: Session) -> None:
    assert [pair.checkpoint().cause for _ in range(3)] == ["requested"] * 3
    assert len(pair.records) == 3


def test_records_become_columns(pair: Session) -> None:
    columns = pair.run(5).columns()
    assert columns["number"].tolist() == [1, 2, 3, 4, 5]
    assert {len(column) for column in columns.values()} == {5}
    [run] = json.loads(pair.records.to_json())
    assert (len(run["records"]), run["settings"]) == (5, pair.settings.as_json())


def test_reported_pages_are_the_pages_sent() -> None:
    with session(delay=5, report_pages=True) as pair:
        for record in pair.run(5):
            assert record.dirty_bitmap is not None
            words = int.from_bytes(record.dirty_bitmap, "little")
            assert words.bit_count() == record.pages
            assert record.flushed_bitmap == record.dirty_bitmap


def test_the_ram_cache_tells_which_pages_wait_in_it(pair: Session) -> None:
    def waiting() -> int:
        return int(pair.nodes["secondary"].execute("x-query-ram-cache")["pages"])

    pair.wait_for_ticks(1)
    number = pair.hold("secondary", "ram-received")
    there = waiting()
    pair.go_on("secondary")
    pair.wait_for(lambda: len(pair.records) == number, "the checkpoint", 30.0)
    assert there == pair.records[-1].pages > 0
    assert waiting() == 0


def test_buffer_grows_with_dirty_pages_only_if_ram_is_in_it() -> None:
    for layout, grows in (("separated", False), ("buffered", True)):
        with session(layout=layout, delay=20, writes_per_tick=400) as pair:
            # On a busy machine the guest may not have had a tick.
            for record in filter(lambda record: record.pages, pair.run(10)):
                buffers = (record.primary_buffer_bytes, record.secondary_buffer_bytes)
                assert (min(buffers) > record.pages * 4096) is grows
                assert (max(buffers) < 64 * 1024) is not grows


def test_held_output_is_released_by_checkpoints(pair: Session) -> None:
    frames = sum(record.frames for record in pair.run(10))
    guest = pair.nodes["primary"].execute("x-query-guest")
    assert guest["frames-sent"] >= frames
    assert pair.nodes["secondary"].execute("x-query-guest")["frames-sent"] <= guest["frames-sent"]


# -- Kills ---------------------------------------------------------------------------------------


@at_each(PRIMARY_POINTS)
def test_primary_killed_at_any_point_of_a_checkpoint(pair: Session, at: str, way: str) -> None:
    run_and_write(pair, 3)
    killed = pair.kill("primary", at=at)
    assert killed.status == -signal.SIGKILL
    assert not psutil.pid_exists(killed.pid)
    takeover = pair.failover()
    committed = at in ("received", "loaded")
    if at != "sent":
        # With all sent, the secondary may or may not have committed.
        assert takeover.checkpoint == 3 + committed
    assert_survived(pair, takeover, "secondary")


@at_each(SECONDARY_POINTS)
def test_primary_killed_at_any_point_of_the_secondarys_checkpoint(
    pair: Session, at: str, way: str
) -> None:
    run_and_write(pair, 3)
    killed = pair.kill("primary", at=at, held="secondary")
    assert killed.status == -signal.SIGKILL
    takeover = pair.failover()
    assert takeover.checkpoint == 3 + (at in ("received", "flush", "load"))
    assert_survived(pair, takeover, "secondary")


@at_each(SECONDARY_POINTS)
def test_secondary_killed_at_any_point_of_a_checkpoint(pair: Session, at: str, way: str) -> None:
    run_and_write(pair, 3)
    killed = pair.kill("secondary", at=at)
    assert killed.status == -signal.SIGKILL
    takeover = pair.failover()
    assert takeover.checkpoint == 3
    assert_survived(pair, takeover, "primary")


@at_each(PRIMARY_POINTS)
def test_secondary_killed_at_any_point_of_the_primarys_checkpoint(
    pair: Session, at: str, way: str
) -> None:
    run_and_write(pair, 3)
    killed = pair.kill("secondary", at=at, held="primary")
    assert killed.status == -signal.SIGKILL
    takeover = pair.failover()
    # What the secondary had said before it died still counts.
    assert takeover.checkpoint - 3 in (0, at in ("sent", "received", "loaded"))
    assert_survived(pair, takeover, "primary")


@every_way
@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_at_a_random_moment_the_survivor_goes_on(kill: int, way: str) -> None:
    dice = random.Random(f"{SEED} {kill}")
    form = dice.choice(FORMS)
    if way != "stream-marked":
        form = form | {"encoding": "none", "layout": "separated"} | WAYS[way]
    victim = ("primary", "secondary")[kill % 2]
    with session(**form, delay=dice.choice([0, 1, 5]), seed=kill) as pair:
        pair.run(dice.randrange(1, 30))
        _spin(dice.random() * 0.01)
        killed = pair.kill(victim)
        assert killed.status == -signal.SIGKILL
        assert not psutil.pid_exists(killed.pid)
        survivor = "secondary" if victim == "primary" else "primary"
        takeover = pair.failover()
        # The last report may have been on its way when the kill came.
        assert takeover.checkpoint >= killed.committed
        assert_survived(pair, takeover, survivor)


def _spin(seconds: float) -> None:
    """Let time pass, so that the kill comes at no particular moment."""
    pid = os.getpid()
    process = psutil.Process(pid)
    begin = sum(process.cpu_times()[:2])
    while sum(process.cpu_times()[:2]) - begin < seconds:
        pass


def test_primary_killed_before_the_first_checkpoint_is_survived_from_the_migrated_state(
    pair: Session,
) -> None:
    pair.kill("primary")
    takeover = pair.failover()
    assert takeover.checkpoint == 0
    assert_survived(pair, takeover, "secondary")


def test_torn_checkpoint_never_reaches_ram(pair: Session) -> None:
    run_and_write(pair, 2)
    pair.hold("primary", "ram-sent")
    secondary = pair.nodes["secondary"]
    before = secondary.execute("x-query-digest")
    assert pair.records[-1].guest_work == before["work"]
    pair.kill("primary")
    takeover = pair.failover()
    assert (takeover.checkpoint, takeover.equal) == (2, True)


@pytest.mark.parametrize("layout", ["separated", "buffered"])
def test_new_pair_after_a_torn_checkpoint_begins_with_nothing_in_the_encoders_cache(
    layout: str,
) -> None:
    with session(delay=None, encoding="xbzrle", layout=layout) as pair:
        for _ in range(10):
            pair.wait_for_ticks(2)
            assert pair.checkpoint().verified
        encoded = pair.records[-1].encoded_pages
        assert 0 < encoded <= pair.records[-1].pages
        # Half of a checkpoint is in the secondary's RAM cache, or none of it.
        pair.wait_for_ticks(2)
        pair.kill("primary", at="ram")
        assert pair.failover().equal
        pair.rejoin()
        pair.wait_for_ticks(2)
        first = pair.checkpoint()
        assert first.verified
        assert first.encoded_pages < first.pages
        for _ in range(5):
            assert pair.checkpoint().verified


@pytest.mark.parametrize("way", ["memfd-shadow"])
def test_survivor_lets_go_of_the_dead_primarys_ram(pair: Session) -> None:
    secondary = pair.nodes["secondary"]

    def borrowed() -> int:
        with open(f"/proc/{secondary.pid}/maps") as maps:
            return sum(" r--s " in line and "memfd:colobench-ram " in line for line in maps)

    pair.run(2)
    assert borrowed() == 1
    pair.kill("primary")
    pair.failover()
    assert borrowed() == 0


def test_failover_while_a_checkpoint_is_loaded_finishes_the_load(pair: Session) -> None:
    run_and_write(pair, 2)
    pair.hold("secondary", "flush")
    takeover = pair.failover("secondary")
    assert takeover.checkpoint == 3
    assert pair.verify("secondary")


def test_failover_without_a_kill_leaves_two_that_run_alone(pair: Session) -> None:
    pair.run(2)
    takeover = pair.failover("secondary")
    assert takeover.takeover_ms is None
    pair.wait_for_event("primary", "COLO_EXIT", reason="error")
    assert pair.failover("primary").work_after > 0
    assert pair.verify("primary")
    assert pair.verify("secondary")


def test_commit_that_nobody_hears_of_is_none(pair: Session) -> None:
    run_and_write(pair, 2)
    pair.kill("primary", at="buffer-received", held="secondary")
    pair.go_on("secondary")
    pair.wait_for_event("secondary", "COLO_EXIT", reason="error")
    takeover = pair.failover()
    assert takeover.checkpoint == 2
    assert_survived(pair, takeover, "secondary")


def test_frames_that_arrive_meanwhile_make_no_difference_between_the_sides() -> None:
    with session(delay=2) as pair:
        primary = pair.nodes["primary"]
        while len(pair.records) < 50:
            # The queue may be full.
            with contextlib.suppress(QMPCommandError):
                primary.execute("x-net-receive", frame="00" * 60)
        assert all(record.verified for record in pair.records)
        assert primary.execute("x-query-guest")["frames-received"] > 0


def test_after_a_kill_there_is_no_pair_to_run(pair: Session) -> None:
    pair.kill("secondary")
    for act in (pair.checkpoint, lambda: pair.run(1), lambda: pair.hold("primary", "ram")):
        with pytest.raises(LocalError, match="expected a pair in COLO, found one parted"):
            act()
    pair.close()


def test_held_node_tells_the_checkpoint_that_is_being_made(pair: Session) -> None:
    for number, (role, at) in enumerate(
        [("primary", "reply"), ("secondary", "load"), ("primary", "loaded")], start=1
    ):
        assert pair.hold(role, at) == number
        pair.go_on(role)
        pair.wait_for(lambda number=number: len(pair.records) == number, "the record", 30)


def test_node_whose_end_nobody_has_waited_for_is_gone_all_the_same(
    pair: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, secondary = pair.nodes["primary"], pair.nodes["secondary"]
    assert not primary.is_gone()
    primary.process.kill()
    # For a moment it is so by itself: the connections end sooner than the process.
    with monkeypatch.context() as moment:
        moment.setattr(primary, "alive", lambda: primary.process.returncode is None)
        assert primary.is_gone()
    assert not secondary.is_gone()


def test_second_lost_heartbeat_is_refused(pair: Session) -> None:
    pair.run(1)
    pair.kill("primary")
    pair.failover()
    with pytest.raises(QMPCommandError, match="The feature 'colo' is not enabled"):
        pair.nodes["secondary"].execute("x-colo-lost-heartbeat")


# -- Silence, cuts and refusals --------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS[::2], ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize("seed", range(amount(1, 6)))
def test_stream_cut_at_any_byte_tears_no_state(form: dict[str, str], seed: int) -> None:
    dice = random.Random(f"{SEED} {seed}")
    with session(**form, delay=None, keep_stream=True) as pair:
        assert pair.relay is not None
        before = pair.relay.crossed("P→S")
        size = pair.run(2)[-1].bytes
        assert pair.relay.crossed("P→S") > before
        committed = len(pair.records)
        pair.relay.cut_after("P→S", pair.relay.crossed("P→S") + dice.randrange(size))
        # Until the cut: the last checkpoint may have been much longer than those that follow.
        with pytest.raises((ColoExit, SessionTimeout)):
            pair.run(1_000_000)
        for role in ("primary", "secondary"):
            pair.wait_for_event(role, "COLO_EXIT", reason="error")
        takeover = pair.failover("secondary")
        assert takeover.checkpoint >= committed
        assert_survived(pair, takeover, "secondary")


@pytest.mark.parametrize("way", [way for way in WAYS if "multifd" in way or "memfd" in way])
def test_primary_that_falls_silent_on_a_page_channel_is_given_up(way: str) -> None:
    with session(delay=None, stall_timeout=1.5, **WAYS[way]) as pair:
        run_and_write(pair, 2)
        pair.hold("primary", "ram")
        why = pair.wait_for_event("secondary", "COLO_EXIT", reason="error").data["x-why"]
        assert why.startswith("receive: expected the peer to go on in 1.5 s")
        takeover = pair.failover("secondary")
        assert (takeover.checkpoint, takeover.equal) == (2, True)


@pytest.mark.parametrize(
    ("direction", "after"), [("P→S", 0), ("P→S", 4), ("P→S", 30000), ("S→P", 0), ("S→P", 4)]
)
def test_stalled_peer_is_given_up_after_the_timeout(direction: str, after: int) -> None:
    with session(delay=None, keep_stream=True, stall_timeout=1.5) as pair:
        assert pair.relay is not None
        run_and_write(pair, 2)
        pair.relay.stall_after(direction, pair.relay.crossed(direction) + after)
        with pytest.raises(ColoExit, match=r"found COLO_EXIT of the \w+: "):
            pair.checkpoint()
        pair.wait_for_event("primary", "COLO_EXIT", reason="error")
        assert_survived(pair, pair.failover("primary"), "primary")


def test_frozen_secondary_is_given_up_and_the_primary_survives() -> None:
    with session(delay=0, stall_timeout=1.5) as pair:
        pair.run(3)
        secondary = pair.nodes["secondary"]
        secondary.process.send_signal(signal.SIGSTOP)
        pair.wait_for_event("primary", "COLO_EXIT", reason="error")
        takeover = pair.failover("primary")
        assert_survived(pair, takeover, "primary")
        secondary.process.send_signal(signal.SIGCONT)


def test_survivor_that_finds_nobody_to_join_it_keeps_its_guest_running(tmp_path: Any) -> None:
    with session(delay=None) as pair:
        primary, secondary = pair.nodes["primary"], pair.nodes["secondary"]
        pair.kill("secondary")
        assert not secondary.alive()
        assert pair.failover().work_after > 0
        primary.execute("migrate", uri=f"unix:{tmp_path}/nobody")
        why = pair.wait_for_event("primary", "X_MIGRATION_ERROR").data["x-why"]
        assert "nobody" in why
        assert primary.execute("query-status") == {"status": "running", "running": True}
        assert pair.verify("primary")


def test_v12_shutdown_takes_one_more_checkpoint_and_ends_both(pair: Session) -> None:
    pair.run(1)
    pair.nodes["primary"].execute("system_powerdown")
    assert [pair.nodes[role].process.wait(30) for role in pair.nodes] == [0, 0]
    pair.journal.wait_for(lambda: len(pair.records) == 2, "the last checkpoint's report", 30)
    assert [record.cause for record in pair.records] == ["requested", "shutdown"]


def test_upstream_shutdown_looks_like_a_crash_to_the_secondary() -> None:
    with session(delay=None, variant="upstream") as pair:
        pair.run(1)
        pair.nodes["primary"].execute("system_powerdown")
        assert pair.nodes["primary"].process.wait(30) == 0
        pair.wait_for_event("secondary", "COLO_EXIT", reason="error")
        assert_survived(pair, pair.failover("secondary"), "secondary")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ram": "7"}, "ram: expected a size such as 64M"),
        ({"ram": "9000G"}, "ram: expected at most"),
        ({"ram": "lots"}, "expected a number such as 64M, found 'lots'"),
        ({"ram": "0"}, "ram: expected a size such as 64M"),
        (
            {"guest": "windows"},
            "one of uniform, hotcold, sequential, idle, kv, replay, sectors, ",
        ),
        ({"layout": "sideways"}, "sideways"),
        ({"seed": -1}, "expected 0 to 2"),
        ({"stall_timeout": 0}, "expected 0.001 to 1e+06 s, found 0"),
        ({"stall_timeout": float("nan")}, "found nan"),
        ({"writes_per_tick": 0}, "expected 1 to 1000000, found 0"),
        ({"delay": 1.5}, "expected 0 to 4294967295 ms or None, found 1.5"),
        ({"delay": -1}, "expected 0 to 4294967295 ms or None, found -1"),
        ({"transport": "pigeon"}, "found 'pigeon'"),
        ({"transport": "memfd+tcp"}, "expected unix, whose sockets pass descriptors, found tcp"),
        ({"transport": "multifd", "layout": "buffered"}, "expected transport stream"),
        ({"multifd_channels": 2}, "expected none with transport stream, found 2"),
        ({"transport": "memfd", "multifd_channels": 0}, "with transport memfd, found 0"),
        ({"tracker": "hound"}, "expected one of marked"),
        ({"working_set": 1 << 40}, "working_set: expected 0 to"),
    ],
)
def test_wrong_setting_is_one_clear_error_and_leaves_nothing(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ColobenchError) as caught, session(**settings):
        pass
    assert words in str(caught.value)


def test_commands_that_make_no_sense_now_are_refused(pair: Session) -> None:
    primary, secondary = pair.nodes["primary"], pair.nodes["secondary"]
    running = lambda: primary.execute("query-status")["running"]  # noqa: E731
    pair.wait_for(running, "the guest to run on after the migration", 30)
    for node, command, arguments, words in [
        (primary, "x-query-digest", {}, "expected a stopped guest"),
        (primary, "stop", {}, "expected a node outside of COLO"),
        (primary, "x-colo-break", {"at": "lunch"}, "expected one of request"),
        (primary, "migrate", {"uri": "tcp:8.8.8.8:1"}, "expected a loopback address"),
        (primary, "migrate", {"uri": "carrier"}, "expected unix:PATH or tcp:HOST:PORT"),
        (primary, "migrate-set-parameters", {"x_checkpoint_delay": -1}, "expected 0 to"),
        (secondary, "migrate", {"uri": "unix:/x"}, "has not been found"),
        (secondary, "x-net-receive", {"frame": "00"}, "found a secondary"),
        (primary, "x-net-receive", {"frame": "zz"}, "expected hexadecimal digits"),
        (primary, "migrate-set-capabilities", {"capabilities": [{}]}, "expected x-colo"),
    ]:
        with pytest.raises(QMPCommandError, match=words):
            node.execute(command, **arguments)
    assert pair.checkpoint().verified


def test_misuse_of_a_session_is_one_clear_error(pair: Session) -> None:
    with pytest.raises(LocalError, match="found it started"):
        pair.start()
    with pytest.raises(LocalError, match="found neither"):
        pair.failover()
    with pytest.raises(LocalError, match="role"):
        pair.kill("tertiary")
    pair.kill("primary")
    with pytest.raises(LocalError, match="expected a living primary, found it dead"):
        pair.kill("primary")


def test_qmp_shell_from_a_second_terminal_can_query_a_node(pair: Session) -> None:
    for node in pair.nodes.values():
        shell = subprocess.run(
            [sys.executable, "-m", "qemu.qmp.qmp_shell", str(node.qmp_path)],
            input="query-status\nquery-colo-status\nx-query-guest\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert f"'mode': '{node.role}'" in shell.stdout.replace('"', "'")
        assert "coalesced-ticks" in shell.stdout


# -- Nothing is left -------------------------------------------------------------------------------


def test_sessions_side_by_side_do_not_meet() -> None:
    with session(delay=5, seed=1) as one, session(delay=5, seed=2) as other:
        assert all(record.verified for pair in (one, other) for record in pair.run(10))
        one.kill("primary")
        assert one.failover().equal
        assert all(record.verified for record in other.run(5))


def test_error_inside_a_session_ends_both_nodes() -> None:
    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), session(delay=0) as pair:
        pair.run(3, progress=interrupted)


def test_forgotten_session_ends_with_the_object() -> None:
    pair = session()
    pair.start()
    pids = [node.pid for node in pair.nodes.values()]
    del pair
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_nodes_die_with_the_process_that_started_them_and_the_next_removes_what_is_left(
    how: signal.Signals | None,
) -> None:
    script = (
        "from colobench.lab.session.session import Session\n"
        "import sys\n"
        "session = Session(ram='8M', delay=0)\n"
        "session.start()\n"
        "session.run(3)\n"
        "print(*[node.pid for node in session.nodes.values()], session.nodes['primary'].qmp_path,"
        " flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        *pids, qmp_path = owner.stdout.readline().split()
        nodes = [psutil.Process(int(pid)) for pid in pids]
        if how is None:
            owner.stdin.close()
        else:
            owner.send_signal(how)
        owner.wait(30)
        assert psutil.wait_procs(nodes, timeout=30)[1] == []
    if how is not None:
        # Nobody was left who could have removed it, so the next session does.
        assert os.path.isdir(os.path.dirname(qmp_path))
        with session(delay=None):
            assert not os.path.exists(os.path.dirname(qmp_path))
