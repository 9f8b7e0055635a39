"""Command line: from arguments to exit status, with errors, signals and closed streams."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from colobench import __version__
from colobench.cli.console import say_error
from colobench.cli.verbs import VERBS, Verb, module_of
from colobench.errors import ColobenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    name = ""
    try:
        _end_when_asked_to()
        _print_what_can_be_printed()
        options, verb = _parse(sys.argv[1:] if arguments is None else arguments)
        name = f" {options.verb}"
        if verb.runs_nodes:
            # A verb without nodes starts without this.
            from colobench.processes.resource_limits import check_limits_of_processes

            check_limits_of_processes()
        status = module_of(options.verb).run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader has closed the pipe.
        return 1
    except KeyboardInterrupt:
        return _interrupted(name)
    except (ColobenchError, OSError) as error:
        return _interrupted(name) if _was_interrupted else _failed(name, str(error))
    except MemoryError as error:
        return _failed(name, f"out of memory: {error}" if str(error) else "out of memory")
    except Exception:
        # An interrupted import may raise another error.
        if _was_interrupted:
            return _interrupted(name)
        raise
    finally:
        _let_go_of_output()


def _interrupted(name: str) -> int:
    say_error(f"colobench{name}: interrupted")
    return 128 + signal.SIGINT


def _failed(name: str, words: str) -> int:
    # Errors of a function that is called like the verb begin with that name already.
    say_error(f"colobench{name}: {words.removeprefix(f'{name.strip()}: ')}")
    return 1


def _print_what_can_be_printed() -> None:
    """Print characters that the terminal's encoding lacks as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _let_go_of_output() -> None:
    """Flush the output; at the very end, an error of that is ignored."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


#: Whether an interrupt has arrived; it may surface as any exception.
_was_interrupted = False


def _interrupt(number: int, frame: object) -> None:
    global _was_interrupted
    _was_interrupted = True
    # An interrupt in a destructor cannot be raised, and Python would print it.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt


def _end_when_asked_to() -> None:
    """Let signals end this process, and with it all processes that it has started."""
    global _was_interrupted
    _was_interrupted = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))
    # Also if it is ignored, as in background jobs of a script: a sender means it.
    signal.signal(signal.SIGINT, _interrupt)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Verb]:
    """Parse the arguments; only the verb that they name is imported."""
    parser = argparse.ArgumentParser(prog="colobench", description="A workbench for COLO.")
    parser.add_argument("--version", action="version", version=f"colobench {__version__}")
    # With `prog`, argparse formats no usage for it, which imports shutil and all compressions.
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog="colobench")
    for name, verb in VERBS.items():
        of_verb = verbs.add_parser(name, help=verb.summary, description=verb.summary)
        if name in arguments:
            module_of(name).add_options(of_verb)
    options, further = parser.parse_known_args(arguments)
    verb = VERBS[options.verb]
    if verb.takes_more:
        options.further = further
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    return options, verb
