"""Size of a connection's two buffers in guest RAM, one for each direction."""

from __future__ import annotations

#: Bytes of a buffer; longer data are kept elsewhere, see `colobench.guest.clients`.
BUFFER_BYTES = 32768
