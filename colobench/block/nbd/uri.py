"""URIs of NBD exports: ``nbd://HOST:PORT/EXPORT`` and ``nbd+unix:///EXPORT?socket=PATH``.

The form is the NetworkBlockDevice project's ``doc/uri.md``, which nbdcopy and qemu-img take, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from colobench.block.nbd.format import encode_name
from colobench.errors import LocalError

#: Port of a URI that names none.
DEFAULT_PORT: Final = 10809
_SCHEMES: Final = ("nbd", "nbd+unix")


@dataclass(frozen=True, slots=True)
class NBDLocation:
    """Place of an export.

    Attributes
    ----------
    address
        Address of the server: ``unix:PATH`` or ``tcp:HOST:PORT``.
    export
        Name of the export; empty for the server's default.
    """

    address: str
    export: str = ""

    def __str__(self) -> str:
        kind, _, rest = self.address.partition(":")
        export = quote(self.export)
        if kind == "unix":
            return f"nbd+unix:///{export}?socket={quote(rest)}"
        return f"nbd://{rest}/{export}"


def is_nbd_uri(text: str) -> bool:
    """Tell a URI of NBD from the path of a file."""
    return text.partition(":")[0] in _SCHEMES and "://" in text


def parse_nbd_uri(uri: str) -> NBDLocation:
    """Read a URI.

    Raises
    ------
    LocalError
        If it has another form, or asks for something that this client does not have.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise LocalError(f"NBD URI {uri!r}: {error}") from error
    query = parse_qs(parts.query, keep_blank_values=True)
    export = unquote(parts.path.removeprefix("/"))
    encode_name(export)
    if parts.scheme == "nbd" and parts.hostname and not parts.username and not query:
        return NBDLocation(f"tcp:{parts.hostname}:{port}", export)
    if parts.scheme == "nbd+unix" and not parts.netloc and set(query) == {"socket"}:
        return NBDLocation(f"unix:{query['socket'][-1]}", export)
    raise LocalError(
        "NBD URI: expected nbd://HOST[:PORT][/EXPORT] or nbd+unix:///[EXPORT]?socket=PATH, found "
        f"{uri!r}"
    )
