"""Model of one key of a Redis-like store: the effect and the answer of each command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from colobench.errors import LocalError
from colobench.lab.clients.history import Operation
from colobench.lab.clients.resp import ErrorReply, Scalar

NOT_AN_INTEGER = ErrorReply("ERR value is not an integer or out of range")
OVERFLOW = ErrorReply("ERR increment or decrement would overflow")
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

READS = frozenset(("GET", "MGET", "EXISTS", "STRLEN"))
ARITHMETIC = frozenset(("INCR", "DECR", "INCRBY"))
#: Commands whose new value, if they have one, does not depend on the old.
LITERAL = frozenset(("SET", "MSET", "DEL"))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value of which little is known: a history's first operations were left out.

    Attributes
    ----------
    length
        Length in bytes; None if nothing is known, not even whether the key exists.
    suffix
        Last bytes that are known.
    """

    length: int | None = None
    suffix: bytes = b""


#: A key's value; None if it is not there.
Value: TypeAlias = bytes | None
State: TypeAlias = Value | Unknown


class Refused:
    """Type of a mark in place of a state: the state does not give that answer."""


REFUSED: Final = Refused()


def parse_integer(value: bytes) -> int | None:
    """Read a 64-bit integer as Redis does, which takes one spelling of each; None if it is none."""
    if len(value) > 20:
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    if b"%d" % number != value or not INTEGER_MIN <= number <= INTEGER_MAX:
        return None
    return number


def increment(operation: Operation) -> int | None:
    """Give what INCR, DECR or INCRBY adds; None if its argument is no integer."""
    if operation.command == "INCRBY":
        return parse_integer(operation.arguments[0])
    return 1 if operation.command == "INCR" else -1


def check_operation(operation: Operation) -> None:
    """Check that the model knows a command.

    Raises
    ------
    LocalError
        If the command, or its arguments, are not modelled.
    """
    command, count = operation.command, len(operation.arguments)
    expected = {"MSET": 1, "INCRBY": 1, "APPEND": 1}.get(command, 0)
    if command == "SET":
        options = [each.upper() for each in operation.arguments[1:]]
        fits = count >= 1 and options in ([], [b"NX"], [b"XX"])
    else:
        fits = command in READS | ARITHMETIC | LITERAL | {"APPEND"} and count == expected
    if not fits:
        arguments = b" ".join(operation.arguments).decode("latin-1")[:40]
        raise LocalError(
            f"history: expected GET, SET [NX|XX], DEL, EXISTS, INCR, DECR, INCRBY, APPEND, STRLEN, "
            f"MSET or MGET with its arguments, found {command} {arguments}"
        )


def execute(operation: Operation, value: Value) -> tuple[Value, Scalar]:
    """Execute a command.

    Parameters
    ----------
    operation
        Operation that `check_operation` has passed; its answer is ignored.
    value
        The key's value.

    Returns
    -------
    tuple
        The value afterwards, and Redis's answer.
    """
    match operation.command:
        case "GET" | "MGET":
            return value, value
        case "EXISTS":
            return value, int(value is not None)
        case "STRLEN":
            return value, len(value or b"")
        case "DEL":
            return None, int(value is not None)
        case "APPEND":
            longer = (value or b"") + operation.arguments[0]
            return longer, len(longer)
        case "SET" | "MSET":
            if len(operation.arguments) > 1:
                only_if_there = operation.arguments[1].upper() == b"XX"
                if only_if_there != (value is not None):
                    return value, None
            return operation.arguments[0], "OK"
    return _add(value, increment(operation))


def _add(value: Value, amount: int | None) -> tuple[Value, Scalar]:
    number = 0 if value is None else parse_integer(value)
    if number is None or amount is None:
        return value, NOT_AN_INTEGER
    if not INTEGER_MIN <= number + amount <= INTEGER_MAX:
        return value, OVERFLOW
    return b"%d" % (number + amount), number + amount


def same(one: Scalar, other: Scalar) -> bool:
    """Say whether two answers are the same: of the same kind, too."""
    return one == other and type(one) is type(other)


def follow(operation: Operation, state: State) -> State | Refused:
    """Give the state after an operation that was answered as it was, REFUSED if that cannot be.

    Of an `Unknown` value as much is learnt as the answer tells; nothing that could be is refused.
    """
    if not isinstance(state, Unknown):
        value, answer = execute(operation, state)
        return value if same(answer, operation.answer) else REFUSED
    return _learn(operation, state)


def _learn(operation: Operation, state: Unknown) -> State | Refused:
    command, answer = operation.command, operation.answer
    match command:
        case "GET" | "MGET":
            return _learn_value(answer, state)
        case "SET" | "MSET":
            if answer == "OK":
                return operation.arguments[0]
            return state if answer is None and len(operation.arguments) > 1 else REFUSED
        case "DEL":
            return None if answer in (0, 1) else REFUSED
        case "EXISTS":
            return state if answer in (0, 1) else REFUSED
        case "STRLEN":
            return _learn_length(answer, b"", state)
        case "APPEND":
            return _learn_length(answer, operation.arguments[0], state)
    if isinstance(answer, int):
        return b"%d" % answer
    return state if answer in (NOT_AN_INTEGER, OVERFLOW) else REFUSED


def _learn_value(answer: Scalar, state: Unknown) -> State | Refused:
    if answer is None:
        return None if not state.length else REFUSED
    if not isinstance(answer, bytes) or not answer.endswith(state.suffix):
        return REFUSED
    return answer if state.length in (None, len(answer)) else REFUSED


def _learn_length(answer: Scalar, more: bytes, state: Unknown) -> State | Refused:
    if not isinstance(answer, int) or answer < len(more):
        return REFUSED
    if state.length is not None and answer != state.length + len(more):
        return REFUSED
    return Unknown(answer, state.suffix + more)


def outcome(operation: Operation, state: State) -> State | Refused:
    """Give the state after an operation without a return, REFUSED if it cannot have been executed.

    Its answer may be known all the same: then it is not known whether it was executed by then.
    """
    if operation.answer is not None:
        return follow(operation, state)
    if not isinstance(state, Unknown):
        return execute(operation, state)[0]
    if operation.command in LITERAL:
        return literal_product(operation)
    if operation.command == "APPEND" and state.length is not None:
        more = operation.arguments[0]
        return Unknown(state.length + len(more), state.suffix + more)
    return state if operation.command in READS else Unknown()


def required(operation: Operation) -> State:
    """Give the one value that explains an answer; `Unknown` if there are several."""
    answer = operation.answer
    match operation.command:
        case "GET" | "MGET" if answer is None or isinstance(answer, bytes):
            return answer
        case "DEL" | "EXISTS" if answer == 0:
            return None
        case "SET" if len(operation.arguments) > 1:
            only_if_there = operation.arguments[1].upper() == b"XX"
            # NX was done, or XX was not.
            if only_if_there == (answer is None):
                return None
    return Unknown()


def literal_product(operation: Operation) -> State:
    """Give the value that SET, MSET or DEL leaves if it is done; `Unknown` for other commands."""
    if operation.command in LITERAL:
        return operation.arguments[0] if operation.arguments else None
    return Unknown()


def adds(operation: Operation) -> int | None:
    """Give what arithmetic adds to a number, and APPEND to a length; None for other commands."""
    if operation.command == "APPEND":
        return len(operation.arguments[0])
    return increment(operation) if operation.command in ARITHMETIC else None


def product(operation: Operation) -> State:
    """Give the value that a write leaves if it is done, as far as its answer tells."""
    answer = operation.answer
    if type(answer) is int:
        if operation.command in ARITHMETIC:
            return b"%d" % answer
        if operation.command == "APPEND":
            return Unknown(answer, operation.arguments[0])
    return literal_product(operation)


def changes_nothing(operation: Operation) -> bool:
    """Say whether an operation, answered as it was, has left every value as it was."""
    if operation.command in READS:
        return True
    if operation.returned is None:
        return False
    if isinstance(operation.answer, ErrorReply):
        return True
    if operation.command == "DEL":
        return operation.answer == 0
    return operation.command == "SET" and operation.answer is None


def is_out_of_memory(operation: Operation) -> bool:
    """Say whether the store had no room, so that the operation was not executed."""
    return isinstance(operation.answer, ErrorReply) and operation.answer.code == "OOM"
