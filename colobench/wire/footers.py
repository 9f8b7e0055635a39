"""Search for the ends of payloads by their footers, if neither the device nor its size is known.

The bytes of a footer, ``7e`` and the section id, may also occur inside a payload. So a candidate
counts only if everything after it splits into sections as well, up to EOF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from colobench.wire.format import SECTION, SECTION_IDENTITY, SectionType

#: Bytes that the search goes over, for each byte of the sections; beyond, it gives up.
PASSES = 256


class SectionHeader(NamedTuple):
    """The header of a START or FULL section; `payload` is the offset of the section's payload."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int
    payload: int


class PayloadEnds(NamedTuple):
    """Result of a search.

    Attributes
    ----------
    ends
        The end of each payload by its beginning. Empty if the bytes cannot be split.
    cut
        True if some of the search ended at the end of the bytes: more bytes may change the result.
    effort
        Bytes that the search went over.
    """

    ends: dict[int, int]
    cut: bool
    effort: int = 0


def section_header(data: bytes, at: int, stop: int) -> SectionHeader | None:
    """Read the header of a START or FULL section, or None if ``data[at:stop]`` holds none."""
    begin = at + SECTION.size + 1
    if begin > stop:
        return None
    idstr = data[begin : begin + data[begin - 1]]
    payload = begin + data[begin - 1] + SECTION_IDENTITY.size
    if payload > stop or not idstr or not idstr.isascii() or not idstr.decode().isprintable():
        return None
    _, section_id = SECTION.unpack_from(data, at)
    instance_id, version_id = SECTION_IDENTITY.unpack_from(data, begin + len(idstr))
    return SectionHeader(section_id, idstr.decode(), instance_id, version_id, payload)


def find_payload_ends(
    data: bytes,
    header: SectionHeader,
    stop: int,
    may_end: Callable[[int], bool],
    effort: int | None = None,
) -> PayloadEnds:
    """Find the ends of the payloads of a FULL section and of all FULL sections that follow it.

    Parameters
    ----------
    data
        The stream.
    header
        The first of the sections.
    stop
        Offset at which the sections have ended at the latest.
    may_end
        Function of an offset behind a footer; True if the FULL sections may end there.
    effort
        Bytes that the search may go over, if it is less than usual.

    Returns
    -------
    PayloadEnds
        The first split that fits.

    Notes
    -----
    This is a depth-first search. Section ids ascend, because a sender writes its devices in the
    order of their registration. The result may be wrong in two cases: if a payload contains its own
    footer and then what looks like a section with a larger id, from which everything splits as
    well; or, where something may follow EOF, if a payload contains its own footer, an EOF, and
    bytes that `may_end` accepts.
    """
    path: list[tuple[SectionHeader, int]] = []
    # The bytes from these payloads on cannot be split, however the payloads were reached.
    dead: set[int] = set()
    search = header.payload
    most = PASSES * (stop - header.payload)
    left = most = most if effort is None else min(most, effort)
    cut = False
    while left > 0:
        end = data.find(SECTION.pack(SectionType.FOOTER, header.section_id), search, stop)
        if end < 0:
            left -= stop - search
            cut = True
            dead.add(header.payload)
            if not path:
                break
            header, search = path.pop()
            continue
        left -= end - search
        search, behind = end + 1, end + SECTION.size
        if may_end(behind):
            ends = [(each.payload, search_from - 1) for each, search_from in path]
            return PayloadEnds(dict([*ends, (header.payload, end)]), cut, most - left)
        if behind < stop and data[behind] == SectionType.FULL:
            following = section_header(data, behind, stop)
            if (
                following is not None
                and following.section_id > header.section_id
                and following.payload not in dead
            ):
                path.append((header, search))
                header, search = following, following.payload
    return PayloadEnds({}, cut, most - left)
