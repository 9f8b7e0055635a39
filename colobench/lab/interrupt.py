"""Sentences about interrupted calls, and about the work that goes on.

A notebook shows that sentence in place of a traceback; a debugger still finds the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Attribute of the exception with the name of the call, for callers that end more on its way out.
_WHAT = "_colobench_interrupted"


def interruptible(
    outcome: str | Callable[..., str],
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a function that explains an interrupt of it.

    Parameters
    ----------
    outcome
        Sentence about the state after an interrupt, or a function of the same arguments that gives
        it.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def explained(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except KeyboardInterrupt as error:
                words = outcome if isinstance(outcome, str) else outcome(*args, **kwargs)
                explain(error, f"{function.__qualname__}()", words)
                raise

        return explained

    return decorate


def explain(error: KeyboardInterrupt, what: str, outcome: str) -> None:
    """Have an interrupt say what it has interrupted, and what is left.

    Parameters
    ----------
    error
        The interrupt. What was explained before, further inside, is replaced.
    what, outcome
        The call, and the state after the interrupt, as parts of a sentence.
    """
    sentence = f"{what} was interrupted: {outcome}."
    error.args = (sentence,)
    setattr(error, _WHAT, what)
    # IPython asks an exception for this, and shows it in place of a traceback.
    setattr(error, "_render_traceback_", lambda: [sentence])  # noqa: B010


def explain_again(error: BaseException | None, outcome: str) -> None:
    """Change what an interrupt says is left, if it has been explained."""
    what = getattr(error, _WHAT, None)
    if isinstance(error, KeyboardInterrupt) and what is not None:
        explain(error, what, outcome)
