"""The roots of colobench's errors: whose fault it is decides the type."""


class ColobenchError(Exception):
    """Anything that colobench raises on purpose."""


class LocalError(ColobenchError):
    """A mistake on our side: a wrong argument, a call in the wrong state, a part missing."""


class RemoteError(ColobenchError):
    """The peer's fault: bytes, messages or silence that the protocol does not allow."""
