"""Base classes of colobench's errors: one for our mistakes, one for the peer's."""


class ColobenchError(Exception):
    """Base class of all errors that colobench raises on purpose."""


class LocalError(ColobenchError):
    """Mistake on our side: a wrong argument, a call in the wrong state, a missing part."""


class RemoteError(ColobenchError):
    """Fault of the peer: bytes, messages or silence that the protocol does not allow."""
