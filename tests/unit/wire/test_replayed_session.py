"""A recorded session that is sent again: unchanged it is the recording, changed it still reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.decode.decode import decode
from colobench.lab.decode.decoding import Decoding
from colobench.lab.decode.kept_pages import KeptPages
from colobench.peers.recorded_session import open_session
from colobench.wire import savevm
from colobench.wire.format import BE64, MigrationCommand
from colobench.wire.messages import Message, encode_message
from colobench.wire.replayed_session import (
    STAMP,
    EditedPage,
    LeftOutMessage,
    ReplayedSession,
    SessionChanges,
    Tear,
)
from colobench.wire.session_places import SessionPlaces, find_places
from places import CLONE
from share import amount, some

DIRECTORY = CLONE / "datasets/qemu"
NAMES = ("colo-pc", "colo-q35-xbzrle", "colo-many-devices")
Recording = tuple[memoryview, SessionPlaces]
PAGE = bytes(range(256)) * 16


@pytest.fixture(scope="module")
def recordings() -> Iterator[dict[str, Recording]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(open_session(DIRECTORY / f"{name}.xz")) for name in NAMES}


def bytes_of(session: ReplayedSession, checkpoints: int) -> bytes:
    pieces = session.migration()
    for number in range(1, checkpoints + 1):
        checkpoint = session.checkpoint(number)
        pieces += [checkpoint.request, *checkpoint.body]
    return b"".join(pieces)


def decoded(data: bytes, directory: Path, block: str = "pc.ram") -> tuple[Decoding, bytes]:
    """Give what `data` decodes to, and a block as it leaves it."""
    (directory / "stream").write_bytes(data)
    keeper = KeptPages(block, file=directory / "block")
    found = decode(directory / "stream", keeper=keeper)
    return found, (directory / "block").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_unchanged_session_is_the_recording(name: str, recordings: dict[str, Recording]) -> None:
    data, places = recordings[name]
    session = ReplayedSession(data, places)
    assert session.recorded == 6
    assert bytes_of(session, session.recorded) == data[: places.checkpoints[-1].extent.end]


@pytest.mark.parametrize("name", some(NAMES, 1))
def test_repetitions_read_to_the_last_byte_and_only_stamped_pages_change(
    name: str, recordings: dict[str, Recording], tmp_path: Path
) -> None:
    data, places = recordings[name]
    _, before = decoded(bytes_of(ReplayedSession(data, places), 6), tmp_path)
    session = ReplayedSession(data, places)
    found, after = decoded(bytes_of(session, 9), tmp_path)
    assert found.problems == ()
    assert [each.complete for each in found.checkpoints] == [True] * 9
    block, stamped = session.stamped_pages
    assert block == "pc.ram"
    for page in range(len(before) // 4096):
        old, new = (each[4096 * page : 4096 * page + 4096] for each in (before, after))
        if page in stamped:
            assert old == bytes(4096)
            assert new == (STAMP + BE64.pack(3)).ljust(4096, b"\0")
        else:
            assert new == old


@pytest.mark.parametrize(
    ("name", "block"), some([(name, block) for name in NAMES for block in ("pc.bios", "pc.ram")], 2)
)
def test_edited_page_is_the_only_page_that_changes(
    name: str, block: str, recordings: dict[str, Recording], tmp_path: Path
) -> None:
    # A record behind an edited page of another block has to name its own block.
    data, places = recordings[name]
    changes = SessionChanges((EditedPage(block, 3, PAGE),))
    stream = bytes_of(ReplayedSession(data, places, changes), 8)
    for each in ("pc.bios", "pc.ram"):
        _, expected = decoded(bytes_of(ReplayedSession(data, places), 8), tmp_path, each)
        if each == block:
            expected = expected[: 3 * 4096] + PAGE + expected[4 * 4096 :]
        found, kept = decoded(stream, tmp_path, each)
        assert found.problems == ()
        assert kept == expected


def test_device_that_is_left_out_is_nowhere(
    recordings: dict[str, Recording], tmp_path: Path
) -> None:
    data, places = recordings["colo-pc"]
    changes = SessionChanges(devices=("kvmclock", "timer"))
    found, _ = decoded(bytes_of(ReplayedSession(data, places, changes), 7), tmp_path)
    assert found.problems == ()
    whole = {device.idstr for device in places.migration.devices}
    for devices in (found.devices, found.last_devices):
        assert {each.identity.idstr for each in devices} == whole - {"kvmclock", "timer"}


@pytest.mark.parametrize("length", [0, 1, 5000, None])
def test_torn_checkpoint_is_a_beginning(
    length: int | None, recordings: dict[str, Recording]
) -> None:
    data, places = recordings["colo-pc"]
    whole = b"".join(ReplayedSession(data, places).checkpoint(1).body)
    torn = ReplayedSession(data, places, SessionChanges(tear=Tear(1, length))).checkpoint(1)
    assert torn.torn
    assert b"".join(torn.body) == whole[: len(whole) // 2 if length is None else length]


@pytest.mark.parametrize(
    "message", [Message.CHECKPOINT_REQUEST, Message.VMSTATE_SEND, Message.VMSTATE_SIZE]
)
def test_left_out_message_is_missing_in_its_checkpoint_only(
    message: Message, recordings: dict[str, Recording]
) -> None:
    data, places = recordings["colo-pc"]
    plain = ReplayedSession(data, places)
    changed = ReplayedSession(data, places, SessionChanges(messages=(LeftOutMessage(message, 2),)))
    for number in (1, 2, 3):
        wanted, found = (each.checkpoint(number) for each in (plain, changed))
        value = wanted.device_bytes if message is Message.VMSTATE_SIZE else None
        sent = wanted.request + b"".join(wanted.body)
        if number == 2:
            sent = sent.replace(encode_message(message, value), b"", 1)
        assert found.request + b"".join(found.body) == sent


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (SessionChanges((EditedPage("pc.rum", 0, PAGE),)), "RAM block: expected one of"),
        (SessionChanges((EditedPage("pc.ram", 8192, PAGE),)), "expected 0 to 8191, found 8192"),
        (SessionChanges((EditedPage("pc.ram", 0, b""),)), "expected 4096 bytes, found 0"),
        (SessionChanges(devices=("clock",)), "device: expected one of"),
        (
            SessionChanges(messages=(LeftOutMessage(Message.VMSTATE_LOADED),)),
            "message: expected one of",
        ),
        (SessionChanges(tear=Tear(1, 1 << 40)), "tear of checkpoint 1: expected 0 to"),
    ],
)
def test_change_of_what_is_not_there_is_refused(
    changes: SessionChanges, words: str, recordings: dict[str, Recording]
) -> None:
    with pytest.raises(LocalError, match=words):
        ReplayedSession(*recordings["colo-pc"], changes).checkpoint(1)


@settings(max_examples=amount(8, 200))
@given(st.floats(0, 1), st.integers(0, 255))
def test_torn_or_damaged_recording_is_refused_or_has_whole_checkpoints(
    recordings: dict[str, Recording], place: float, byte: int
) -> None:
    data, _ = recordings["colo-pc"]
    cut = data[: int(place * len(data))]
    damaged = bytearray(data)
    damaged[int(place * (len(data) - 1))] = byte
    for each in (cut, memoryview(damaged)):
        with suppress(LocalError):
            session = ReplayedSession(each, find_places(each))
            assert bytes_of(session, 1) == each[: session.places.checkpoints[0].extent.end]


@pytest.mark.parametrize("message", [Message.CHECKPOINT_READY, Message.CHECKPOINT_REQUEST])
def test_checkpoints_behind_one_without_a_message_are_not_sent(
    message: Message, recordings: dict[str, Recording]
) -> None:
    data, places = recordings["colo-pc"]
    changed = bytearray(data)
    place = places.checkpoints[2].messages["VMSTATE_SEND"]
    changed[place.begin : place.end] = encode_message(message)
    found = find_places(memoryview(changed))
    assert found.checkpoints == places.checkpoints[:2]
    assert bytes_of(ReplayedSession(memoryview(changed), found), 3).startswith(
        data[: places.checkpoints[1].extent.end]
    )


def session_without_ram() -> bytes:
    migration = savevm.stream_header("pc") + savevm.command(MigrationCommand.ENABLE_COLO, b"")
    begin = encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND)
    size = encode_message(Message.VMSTATE_SIZE, len(savevm.EOF))
    return migration + savevm.EOF + begin + size + savevm.EOF


def test_other_files_are_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, words in (
        (b"", "found an empty file"),
        (b"text", "expected a migration at its begin"),
        (b"\xfd7zXZ\0 and no more", "expected a file that can be read"),
    ):
        path.write_bytes(data)
        with pytest.raises(LocalError, match=f"{path}: .*{words}"), open_session(path):
            pass
    path.write_bytes(session_without_ram())
    with pytest.raises(LocalError, match="expected RAM in its migration"), open_session(path):
        pass
    words = "found an ordinary migration"
    with pytest.raises(LocalError, match=words), open_session(DIRECTORY / "pc.xz"):
        pass
