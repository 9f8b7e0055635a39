"""Parser of QMP's JSON, piece by piece, with the dialect of QEMU 7.2.

The dialect has strings in single quotes, too, and ``\\'`` in either kind. It has no NaN, no
Infinity, no member twice in an object, and in strings no control characters, no surrogate alone,
no noncharacter.

A text ends with the bracket that closes its first one, as clients need not send newlines. Outside
of brackets each string, number, word, colon and comma is a text of its own. A byte that begins no
token ends the text that it is in; what follows is skipped up to a bracket, a comma, a colon or a
control character. Clients may send 0xFF to end a text.

Each byte is read once, and no call into C takes longer than for one piece: the thread that
parses delays no other.

QEMU accepts 64 MiB and two million tokens in one text, and 1024 open brackets. If a text has more
brackets, QEMU answers its rest as separate texts; here the rest is skipped. A number that is
too large for a double is an error here; QEMU answers with ``inf``, which is not JSON.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from colobench.errors import RemoteError

#: Most bytes of a text, without the white space between its tokens.
LENGTH_LIMIT: Final = 1 << 20
#: Most tokens of a text: each may become a value, which needs some hundred bytes of memory.
TOKENS_LIMIT: Final = 1 << 16
#: Most open brackets at a time.
NESTING_LIMIT: Final = 1024
#: Most bytes of a number or a keyword.
WORD_LIMIT: Final = 1024
#: Characters of a stray token that an error shows.
_SHOWN = 80

_PUNCTUATION = b"{}[]:,"
_QUOTES = b"'\""
_DIGITS = b"0123456789"
_LETTERS = bytes(range(ord("a"), ord("z") + 1))
_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET, _COLON, _COMMA = _PUNCTUATION
_BACKSLASH = ord("\\")

_SPACE = re.compile(rb"[ \t\r\n]*")
#: Bytes at which parsing goes on after a byte that begins no token.
_RECOVERED = re.compile(rb"[{}\[\]:,\x00-\x08\x0a-\x1f\xfe\xff]")
#: Characters in a string without an escape, by its quote.
_IN_STRING = {
    _QUOTES[0]: re.compile(rb"(?:[^'\\\x00-\x1f\xfe\xff]++|\\[\x20-\xfd])*+"),
    _QUOTES[1]: re.compile(rb'(?:[^"\\\x00-\x1f\xfe\xff]++|\\[\x20-\xfd])*+'),
}
_KEYWORD = re.compile(rb"[a-z]+")
#: A zero has an exponent only after a fraction.
_NUMBER = re.compile(
    rb"-?(?:0(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?)?|[1-9][0-9]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
)
#: A number, or the beginning of one.
_NUMBER_BEGUN = re.compile(
    rb"-?(?:(?:0|[1-9][0-9]*)\.(?:[0-9]+(?:[eE][-+]?[0-9]*)?)?|0|[1-9][0-9]*(?:[eE][-+]?[0-9]*)?)?"
)
_KEYWORDS = {b"true": True, b"false": False, b"null": None}
_INTEGERS = range(-(1 << 63), 1 << 64)

_ESCAPE = re.compile(
    r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.?)",
    re.DOTALL,
)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", **{c: c for c in "\"'\\/"}}
#: NUL in QEMU's UTF-8, which has two bytes for it, so that C can have it in a string.
_NUL = b"\xc0\x80"
_NO_CHARACTER = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


class QMPParseError(RemoteError):
    """Text that is not JSON in QMP's dialect."""


class TextTooDeep(QMPParseError):
    """Text with too many open brackets; its rest is skipped."""


class TextTooLong(QMPParseError):
    """Text that has not ended within the limits; nothing after it can be read."""


class QMPParser:
    """Parser of one client's bytes, which finds the texts in them."""

    def __init__(self) -> None:
        self._text: _Text | None = None
        #: Beginning of an incomplete token: a word, or a backslash in a string.
        self._rest = b""
        #: Quote of an incomplete string, or 0, and its characters so far.
        self._quote = 0
        self._string = bytearray()
        self._recovering = False
        #: Numbers of bytes and tokens of the text so far.
        self._length = self._count = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take in the next bytes.

        Yields
        ------
        Any
            For each text that ends in them, its value, or its `QMPParseError`. Nothing follows a
            `TextTooLong`.
        """
        for token in self._tokens(data):
            if isinstance(token, QMPParseError):
                if self._text is None or not self._text.told:
                    yield token
                self._text, self._length, self._count = None, 0, 0
                continue
            text = self._text
            if text is None:
                text = self._text = _Text()
            ended = text.add(*token)
            if not text.told and (ended or isinstance(text.error, TextTooDeep)):
                text.told = True
                yield text.value if text.error is None else text.error
            if ended:
                self._text, self._length, self._count = None, 0, 0

    def _tokens(self, data: bytes) -> Iterator[tuple[int, bytes] | QMPParseError]:
        """Cut bytes into tokens: the first byte of each, and its contents."""
        data, self._rest = self._rest + data, b""
        at = 0
        while at < len(data):
            if self._recovering:
                found = _RECOVERED.search(data, at)
                if found is None:
                    return
                at, self._recovering = found.start(), False
            space = _SPACE.match(data, at) if not self._quote else None
            at = at if space is None else space.end()
            if at == len(data):
                return
            begin, first = at, data[at]
            token: tuple[int, bytes] | QMPParseError | None
            if self._quote or first in _QUOTES:
                token, at = self._read_string(data, at)
            elif first in _PUNCTUATION:
                token, at = (first, b""), at + 1
            else:
                token, at = self._read_word(data, at)
            self._length += at - begin
            # Skipped bytes are not kept.
            self._count += token is not None and not (self._text and self._text.told)
            if self._length > LENGTH_LIMIT:
                yield TextTooLong(f"JSON text longer than {LENGTH_LIMIT} bytes")
                return
            if self._count > TOKENS_LIMIT:
                yield TextTooLong(f"JSON text of more than {TOKENS_LIMIT} tokens")
                return
            if token is not None:
                self._recovering = isinstance(token, QMPParseError)
                yield token

    def _read_string(
        self, data: bytes, at: int
    ) -> tuple[tuple[int, bytes] | QMPParseError | None, int]:
        """Read on in a string; return the token, if it has ended, and the next position."""
        if not self._quote:
            self._quote = data[at]
            at += 1
        quote = self._quote
        found = _IN_STRING[quote].match(data, at)
        assert found is not None
        self._string += found[0]
        at = found.end()
        if at == len(data):
            return None, at
        if data[at] == _BACKSLASH and at + 1 == len(data):
            self._rest = data[at:]
            # Its bytes are counted when it is read again.
            self._length -= 1
            return None, at + 1
        string = bytes(self._string)
        self._string.clear()
        self._quote = 0
        if data[at] == quote:
            return (quote, string), at + 1
        bad = data[at : at + 1 + (data[at] == _BACKSLASH)]
        return _stray(bytes([quote]) + string + bad), at + len(bad)

    def _read_word(
        self, data: bytes, at: int
    ) -> tuple[tuple[int, bytes] | QMPParseError | None, int]:
        """Read a number or a keyword; return the token, if it has ended, and the next position."""
        is_keyword = data[at] in _LETTERS
        found = (_KEYWORD if is_keyword else _NUMBER_BEGUN).match(data, at)
        assert found is not None
        word, end = found[0], found.end()
        if len(word) > WORD_LIMIT:
            return _parse_error(f"word longer than {WORD_LIMIT} bytes"), end
        if end == len(data):
            self._rest = word
            self._length -= len(word)
            return None, end
        if is_keyword:
            return (word[0], word), end
        leading_zero = word in (b"0", b"-0") and data[end] in _DIGITS
        if leading_zero or not _NUMBER.fullmatch(word):
            return _stray(data[at : end + 1]), end + 1
        return (word[0], word), end


class _Expect(enum.Enum):
    """Token that may come next in a list or an object."""

    VALUE = enum.auto()
    VALUE_OR_END = enum.auto()
    KEY = enum.auto()
    KEY_OR_END = enum.auto()
    COLON = enum.auto()
    SEPARATOR_OR_END = enum.auto()


class _Open:
    """List or object that is incomplete."""

    __slots__ = ("expect", "items", "key")

    def __init__(self, first: int) -> None:
        self.items: list[Any] | dict[str, Any] = [] if first == _OPEN_BRACKET else {}
        self.expect = _Expect.VALUE_OR_END if first == _OPEN_BRACKET else _Expect.KEY_OR_END
        self.key = ""

    def add(self, value: Any) -> None:
        """Add an element, a key, or the value of the last key."""
        if isinstance(self.items, list):
            self.items.append(value)
        elif self.expect in (_Expect.KEY, _Expect.KEY_OR_END):
            if not isinstance(value, str):
                raise _parse_error("key is not a string in object")
            self.key, self.expect = value, _Expect.COLON
            return
        elif self.key in self.items:
            raise _parse_error("duplicate key")
        else:
            self.items[self.key] = value
        self.expect = _Expect.SEPARATOR_OR_END


class _Text:
    """One text, parsed token by token, without recursion."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: QMPParseError | None = None
        #: Whether its value or error was returned.
        self.told = False
        self._braces = self._brackets = 0
        self._open: list[_Open] = []

    def add(self, first: int, data: bytes) -> bool:
        """Add a token; return whether the text ends with it."""
        # As QEMU counts brackets, "[}" has ended, and "{[}" has not.
        self._braces += (first == _OPEN_BRACE) - (first == _CLOSE_BRACE)
        self._brackets += (first == _OPEN_BRACKET) - (first == _CLOSE_BRACKET)
        braces, brackets = self._braces, self._brackets
        if self.error is None:
            try:
                if braces + brackets > NESTING_LIMIT:
                    raise TextTooDeep("JSON nesting depth limit exceeded")
                self._take(first, data)
            except QMPParseError as error:
                self.error = error
                self._open.clear()
        return braces < 0 or brackets < 0 or braces == brackets == 0

    def _take(self, first: int, data: bytes) -> None:
        within = self._open[-1] if self._open else None
        expect = _Expect.VALUE if within is None else within.expect
        if within is not None and expect is _Expect.COLON:
            if first != _COLON:
                raise _parse_error("missing : in object pair")
            within.expect = _Expect.VALUE
        elif within is not None and expect is _Expect.SEPARATOR_OR_END:
            self._take_separator(within, first)
        elif (first == _CLOSE_BRACKET and expect is _Expect.VALUE_OR_END) or (
            first == _CLOSE_BRACE and expect is _Expect.KEY_OR_END
        ):
            self._end()
        elif first in (_OPEN_BRACE, _OPEN_BRACKET):
            self._open.append(_Open(first))
        elif first in _PUNCTUATION:
            raise _parse_error("expecting value")
        else:
            self._add(_scalar(first, data))

    def _take_separator(self, within: _Open, first: int) -> None:
        in_list = isinstance(within.items, list)
        if first == (_CLOSE_BRACKET if in_list else _CLOSE_BRACE):
            self._end()
        elif first == _COMMA:
            within.expect = _Expect.VALUE if in_list else _Expect.KEY
        else:
            raise _parse_error(f"expected separator in {'list' if in_list else 'dict'}")

    def _end(self) -> None:
        self._add(self._open.pop().items)

    def _add(self, value: Any) -> None:
        if self._open:
            self._open[-1].add(value)
        else:
            self.value = value


def _parse_error(words: str) -> QMPParseError:
    return QMPParseError(f"JSON parse error, {words}")


def _stray(token: bytes) -> QMPParseError:
    shown = token[: _SHOWN + 1].partition(b"\0")[0].replace(_NUL, b"\0").decode(errors="replace")
    shown = _NO_CHARACTER.sub("\ufffd", shown)
    return _parse_error(f"stray '{shown[:_SHOWN]}{'...' * (len(shown) > _SHOWN)}'")


def _scalar(first: int, data: bytes) -> Any:
    if first in _QUOTES:
        return _string(data, chr(first))
    if first not in _LETTERS:
        return _number(data)
    if data not in _KEYWORDS:
        raise _parse_error(f"invalid keyword '{data[:_SHOWN].decode()}'")
    return _KEYWORDS[data]


def _number(data: bytes) -> int | float:
    if not set(data) & set(b".eE") and (integer := int(data)) in _INTEGERS:
        return integer
    number = float(data)
    if math.isinf(number):
        raise _parse_error(f"number out of range: '{data[:_SHOWN].decode()}'")
    return number


def _string(data: bytes, quote: str) -> str:
    data = data.replace(_NUL, b"\0")
    try:
        text, whole = data.decode(), True
    except UnicodeDecodeError as error:
        text, whole = data[: error.start].decode(), False
    if not text.isascii() and (bad := _NO_CHARACTER.search(text)):
        text, whole = text[: bad.start()], False
    # Only the first error is reported.
    found = _ESCAPE.sub(lambda escape: _unescape(escape, quote), text)
    if not whole:
        raise _parse_error("invalid UTF-8 sequence in string")
    return found


def _unescape(found: re.Match[str], quote: str) -> str:
    high, low, single, mark = found.groups()
    if mark in _ESCAPED:
        return _ESCAPED[mark]
    shown = found[0]
    if mark == "u":
        # Fewer than four digits: QEMU shows the characters in their place.
        shown = (found.string + quote)[found.start() : found.start() + 6]
    elif mark is not None:
        raise _parse_error("invalid escape sequence in string")
    elif high is not None:
        character = chr(0x10000 + (int(high, 16) - 0xD800 << 10) + int(low, 16) - 0xDC00)
    else:
        character = chr(int(single, 16))
    if mark == "u" or _NO_CHARACTER.match(character):
        raise _parse_error(f"{shown} is not a valid Unicode character")
    return character
