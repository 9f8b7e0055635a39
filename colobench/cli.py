"""The command line: one function for each verb."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colobench import __version__
from colobench.errors import ColobenchError, LocalError
from colobench.guest.programs import Program
from colobench.lab.output_file import check_output_file, write_output_file
from colobench.processes.resource_limits import check_limits_of_processes

if TYPE_CHECKING:
    from colobench.lab.bench.case import Row
    from colobench.lab.session.session import Session

#: Records that `run` keeps: of as many checkpoints as it takes in a quarter of an hour.
_KEPT_RECORDS = 10_000
#: What `status` exits with, as `systemctl status` does for what is not active, and not there.
_UNPROTECTED, _NO_SESSION = 3, 4
#: What takes longer is said also where no bar can be shown.
_SILENT_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    name = ""
    try:
        _end_when_asked_to()
        _print_what_can_be_printed()
        parser = _parser()
        options, further = parser.parse_known_args(arguments)
        name = f" {options.name}"
        if options.name == "lab":
            options.further = further
        elif further:
            parser.error(f"unrecognized arguments: {' '.join(further)}")
        if options.verb in (_demo, _run, _torture, _warmup, _bench):
            check_limits_of_processes()
        status: int = options.verb(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Nobody reads on.
        return 1
    except KeyboardInterrupt:
        return _interrupted(name)
    except (ColobenchError, OSError) as error:
        return _interrupted(name) if _was_interrupted else _failed(name, str(error))
    except MemoryError as error:
        return _failed(name, f"out of memory: {error}" if str(error) else "out of memory")
    except Exception:
        # An import that is interrupted may make another error of it.
        if _was_interrupted:
            return _interrupted(name)
        raise
    finally:
        _let_go_of_output()


def _interrupted(name: str) -> int:
    _say_error(f"colobench{name}: interrupted")
    return 128 + signal.SIGINT


def _failed(name: str, words: str) -> int:
    _say_error(f"colobench{name}: {words}")
    return 1


def _say_error(words: str) -> None:
    """Print to standard error, if anybody reads it."""
    with suppress(OSError, ValueError):
        print(words, file=sys.stderr, flush=True)


def _print_what_can_be_printed() -> None:
    """Have a character that the terminal's encoding lacks become a question mark, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _let_go_of_output() -> None:
    """Write what is buffered; what cannot be written must not be another error at the very end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


#: Whether an interrupt has arrived: what comes of it may be any exception.
_was_interrupted = False


def _interrupt(number: int, frame: object) -> None:
    global _was_interrupted
    _was_interrupted = True
    # Where Python can raise nothing it would print.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt


def _end_when_asked_to() -> None:
    """Have signals end this like any other program, and with it what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(128 + signal.SIGHUP))
    # Also where it is ignored, as a script's background jobs begin: whoever sends it means it.
    signal.signal(signal.SIGINT, _interrupt)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colobench", description="A workbench for COLO.")
    parser.add_argument("--version", action="version", version=f"colobench {__version__}")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB")

    def verb(name: str, function: Any, words: str) -> argparse.ArgumentParser:
        of_verb = verbs.add_parser(name, help=words, description=words)
        of_verb.set_defaults(verb=function)
        return of_verb

    demo = verb("demo", _demo, "checkpoints, a kill in the middle of one, takeover, the proof")
    add_session_options(demo)
    demo.add_argument("--checkpoints", type=_positive, default=60, metavar="N", help="[60]")
    demo.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    demo.add_argument(
        "--report", type=_new_file, metavar="FILE", help="HTML report [colobench-report.html]"
    )
    serve = verb("run", _run, "serve real clients until Ctrl-C; kill either node meanwhile")
    add_session_options(serve, guest="kv")
    add_network_options(serve)
    serve.add_argument("--seconds", type=_positive, metavar="N", help="end by itself")
    serve.add_argument("--no-rejoin", action="store_true", help="run on alone after a takeover")
    words = "let clients in before the pair is protected: they lose all if the primary dies then"
    serve.add_argument("--serve-unprotected", action="store_true", help=words)
    words = "file that keeps the arbiter's grants from one run to the next"
    serve.add_argument("--state", metavar="FILE", help=words)
    serve.add_argument("--json", action="store_true", help="print one JSON object at the end")
    words = "say of each session that runs whether its guest is protected; exits with 0 if all are"
    status = verb("status", _status, words)
    words = "its directory, or the pid of the process that runs it [all of this user]"
    status.add_argument("sessions", nargs="*", metavar="SESSION", help=words)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    tortures = verb("torture", _torture, "kill nodes of a serving pair, and judge what clients saw")
    add = tortures.add_argument
    add("--kills", type=_positive, default=20, metavar="N", help="[20]")
    add("--seed", type=_whole, default=1, help="of the plan [1]")
    add("--jobs", type=_positive, default=1, metavar="N", help="pairs that suffer at a time [1]")
    words = "a line for each kill; what is there is kept"
    add("--results", type=_new_file, metavar="FILE", help=words)
    add("--clients", type=_positive, default=8, metavar="N", help="[8]")
    add("--transport", action="append", metavar="NAME", help="[stream, multifd and memfd]")
    _add_encoding(tortures)
    add("--output", action="append", choices=["buffer", "compare"], help="[both]")
    add("--heartbeat-limit", type=_positive, default=200, metavar="MS", help="[200]")
    add("--checker-seconds", type=_positive, default=60, metavar="N", help="for a history [60]")
    add("--checker-memory", default="512M", metavar="SIZE", help="for a key of a history [512M]")
    add("--bug", metavar="NAME", help="plant a bug, see docs/bug-museum.md, and stop when caught")
    add("--clean", type=_positive, metavar="N", help="kill nobody; take so many checkpoints")
    add("--json", action="store_true", help="print the summary as one JSON object")
    words = "open JupyterLab at notebooks/00_index.ipynb; jupyter lab's own options may follow"
    lab = verb("lab", _lab, words)
    words = "copy notebooks and documents there and open those; what is there is kept "
    words += "[the clone's; colobench-notebooks where there is no clone]"
    lab.add_argument("--directory", type=Path, metavar="DIRECTORY", help=words)
    doctor = verb("doctor", _doctor, "say what this machine offers, by testing its effect")
    doctor.add_argument("--json", action="store_true", help="print a JSON object")
    verb("warmup", _warmup, "compile all kernels, so that nothing is compiled later")
    bench = verb("bench", _bench, "measure each figure beside its reference, in the same run")
    bench.add_argument("names", nargs="*", type=_subject, metavar="NAME", help="what [all]")
    bench.add_argument("--list", action="store_true", help="print the names, and what they are")
    bench.add_argument("--peers", action="store_true", help="measure two QEMUs in COLO, too")
    bench.add_argument("--json", type=_new_file, metavar="FILE", help="write a JSON object")
    bench.add_argument("--html", type=_new_file, metavar="FILE", help="write a page with plots")
    protocol = verb("protocol", _protocol, "print the conversation's tables")
    protocol.add_argument("--mermaid", action="store_true", help="as Mermaid state diagrams")
    return parser


def add_session_options(parser: argparse.ArgumentParser, guest: str = "uniform") -> None:
    """Add the options that describe a session; `guest` is the program if none is given."""
    add = parser.add_argument
    # What a demonstration proves of RAM does not hold for a guest whose RAM its clients decide on.
    programs = [each.label for each in Program if each.is_reproducible or each.label == guest]
    add("--ram", default="64M", metavar="SIZE", help="guest RAM [64M]")
    add("--guest", default=guest, choices=programs, help=f"its program [{guest}]")
    add("--seed", type=_whole, default=0, help="what the guest writes follows from it [0]")
    add("--writes-per-tick", type=_whole, default=4, metavar="N", help="words written per ms [4]")
    add("--working-set", type=_whole, default=0, metavar="PAGES", help="write only so many pages")
    add("--delay", type=_whole, default=100, metavar="MS", help="x-checkpoint-delay [100]")
    add(
        "--transport",
        default="stream",
        metavar="NAME",
        help="stream, multifd or memfd, over a UNIX socket or, as in multifd+tcp, over TCP; "
        "unix or tcp: stream over that [stream]",
    )
    _add_encoding(parser)
    add("--multifd-channels", type=_whole, metavar="N", help="connections of multifd and memfd")
    add(
        "--tracker",
        default="marked",
        metavar="NAME",
        help="how writes are learnt: marked, userfault, shadow or mprotect [marked]",
    )
    add("--layout", default="separated", choices=["separated", "buffered"])
    add("--variant", choices=["v12", "upstream"], help="[v12; upstream where output is compared]")
    add("--stall-timeout", type=_seconds, default=10.0, metavar="SECONDS", help="[10]")
    add("--no-verify", action="store_true", help="do not digest RAM and devices: for measuring")


def _add_encoding(parser: argparse.ArgumentParser) -> None:
    words = "of a page, send what has changed since it was sent last; with transport stream [none]"
    parser.add_argument("--encoding", default="none", choices=["none", "xbzrle"], help=words)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a session's network, and who decides on a failover."""
    from colobench.node.compare_options import add_compare_options

    add = parser.add_argument
    add(
        "--hostfwd",
        action="append",
        metavar="RULE",
        help="such as tcp:127.0.0.1:6379-:6379, which is the default; port 0: any free one",
    )
    add("--pcap", type=_new_file, metavar="FILE", help="write the frames on the guest's links")
    add(
        "--pcap-mirror",
        type=_new_file,
        metavar="FILE",
        help="write those between the nodes (output compare)",
    )
    add("--output", default="buffer", choices=["buffer", "compare"], help="[buffer]")
    add_compare_options(parser)
    add("--heartbeat-interval", type=_whole, default=50, metavar="MS", help="[50]")
    add(
        "--heartbeat-limit",
        type=_whole,
        default=500,
        metavar="MS",
        help="a silence is a death [500]",
    )
    add("--clock-us", type=_whole, default=0, metavar="N", help="step of the guest's clock")
    add("--jitter-us", type=_whole, default=0, metavar="N", help="requests wait up to so long")
    add("--shuffle", type=_whole, default=0, metavar="N", help="turns out of order, per mille")


def _network_settings(options: argparse.Namespace) -> dict[str, Any]:
    from colobench.guest.configuration import Nondeterminism
    from colobench.lab.session.services import Heartbeat
    from colobench.node.compare_options import compare_settings

    return {
        "hostfwd": options.hostfwd or ["tcp:127.0.0.1:6379-:6379"],
        "pcap": None if options.pcap is None else os.path.abspath(options.pcap),
        "pcap_mirror": options.pcap_mirror and os.path.abspath(options.pcap_mirror),
        "output": options.output,
        "compare": compare_settings(options),
        "heartbeat": Heartbeat(options.heartbeat_interval, options.heartbeat_limit),
        "nondeterminism": Nondeterminism(options.clock_us, options.jitter_us, options.shuffle),
    }


def make_session(options: argparse.Namespace, **more: Any) -> Session:
    """Make the session that the options describe; `more` are further parameters of its."""
    from colobench.lab.session.session import Session

    return Session(
        ram=options.ram,
        guest=options.guest,
        seed=options.seed,
        writes_per_tick=options.writes_per_tick,
        working_set=options.working_set,
        delay=options.delay,
        transport=options.transport,
        encoding=options.encoding,
        multifd_channels=options.multifd_channels,
        tracker=options.tracker,
        layout=options.layout,
        variant=options.variant or ("upstream" if more.get("output") == "compare" else "v12"),
        stall_timeout=options.stall_timeout,
        verify=not options.no_verify,
        **more,
    )


def _whole(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        words = f"expected a number of seconds, found {text!r}"
        raise argparse.ArgumentTypeError(words) from None


def _subject(text: str) -> str:
    from colobench.lab.bench.run import subjects

    known = [*subjects(), "pause"]
    if text not in known:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, found {text!r}")
    return text


def _new_file(text: str) -> Path:
    try:
        return check_output_file(text)
    except LocalError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _demo(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.lab.report.run_summary import format_summary
    from colobench.lab.studies.demo import run_demo

    path = options.report or Path("colobench-report.html")
    wanted = options.report is not None or not options.json
    write_report = _report_writer(path) if wanted else None
    session = make_session(options)
    with tqdm(
        total=options.checkpoints, unit=" checkpoints", disable=None, leave=False, delay=0.5
    ) as bar:
        summary = run_demo(
            session,
            options.checkpoints,
            say=bar.set_description_str,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    written = write_report and write_report(path, session.records, summary)
    if options.json:
        print(json.dumps(summary))
    else:
        print(format_summary(summary))
        print(_machine_line(summary["machine"]))
    if written is not None:
        print(f"report: {written}", file=sys.stderr if options.json else sys.stdout)
    for proof, holds in summary["proofs"].items():
        if not holds:
            print(f"colobench demo: not so: {proof.replace('_', ' ')}", file=sys.stderr)
    return 0 if summary["verified"] else 1


def _run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.lab.report.run_summary import compute_statistics
    from colobench.lab.session.supervise import Tally, serve

    session = make_session(
        options,
        **_network_settings(options),
        serve_unprotected=options.serve_unprotected,
        arbiter_state=options.state and os.path.abspath(options.state),
        keep_records=_KEPT_RECORDS,
    )
    session.check_places()
    words, tally = sys.stderr if options.json else sys.stdout, Tally()
    session.on_record(tally.add)
    end = None if options.seconds is None else time.monotonic() + options.seconds
    with closing(session), tqdm(unit=" checkpoints", disable=None, leave=False, delay=0.5) as bar:

        def say(sentence: str) -> None:
            with bar.external_write_mode(words):
                print(sentence, file=words, flush=True)

        try:
            serve(
                session,
                rejoin=not options.no_rejoin,
                until=lambda: end is not None and time.monotonic() >= end,
                say=say,
                turn=lambda: bar.update(session.records.total - bar.n),
            )
        except KeyboardInterrupt:
            if not session.began:
                raise
    # Percentiles are those of the newest records.
    summary = (
        compute_statistics(session.records)
        | tally.as_json()
        | {"parameters": dict(session.settings)}
    )
    if options.json:
        print(json.dumps(summary))
    else:
        causes = ", ".join(f"{count} {cause}" for cause, count in summary["causes"].items())
        print(f"{summary['checkpoints']} checkpoints ({causes or 'none'})")
    return 0 if summary["verified"] else 1


def _status(options: argparse.Namespace) -> int:
    from colobench.lab.session.status import PairState, examine, find, render

    statuses = [status for path in find(options.sessions) if (status := examine(path)) is not None]
    if options.json:
        print(json.dumps({"sessions": [status.as_json() for status in statuses]}))
    for status in [] if options.json else statuses:
        print(render(status))
    if not statuses:
        print("colobench status: no session runs", file=sys.stderr)
        return _NO_SESSION
    protected = all(status.state is PairState.PROTECTED for status in statuses)
    return 0 if protected else _UNPROTECTED


def _torture(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.guest.configuration import DETERMINISTIC, parse_size
    from colobench.lab.checker.linearizability import Effort
    from colobench.lab.session.services import Heartbeat
    from colobench.lab.torture.kill_plan import (
        OUTPUTS,
        POINTS,
        SIDES,
        TRANSPORTS,
        plan,
    )
    from colobench.lab.torture.kill_results import Results, summarize
    from colobench.lab.torture.museum import exhibit
    from colobench.lab.torture.run import Settings, torture
    from colobench.lab.torture.text import as_json, render

    shown = exhibit(options.bug) if options.bug else None
    planned = plan(
        options.seed,
        options.kills,
        transports=options.transport or (TRANSPORTS if options.encoding == "none" else ["stream"]),
        outputs=options.output or (shown.outputs if shown else OUTPUTS),
        victims=shown.victims if shown else SIDES,
        points=shown.points if shown else POINTS,
    )
    limit = options.heartbeat_limit
    settings = Settings(
        clients=options.clients,
        heartbeat=Heartbeat(max(1, limit // 10), limit),
        nondeterminism=shown.nondeterminism if shown else DETERMINISTIC,
        encoding=options.encoding,
        bug=options.bug,
        effort=Effort(options.checker_seconds, parse_size(options.checker_memory)),
    )
    if options.clean:
        return _torture_nobody(options, settings)
    file = None if options.results is None else Results(options.results)
    results = [] if file is None else file.load()
    left = planned if file is None else file.remaining(planned, settings.by_name())
    if options.bug and any(result.violations for result in results):
        left = []
    bar = tqdm(total=len(planned), initial=len(planned) - len(left), unit=" kills", disable=None)
    try:
        with bar:
            for result in torture(left, settings, jobs=options.jobs, say=bar.set_description_str):
                results.append(result)
                if file is not None:
                    file.append(result)
                bar.update()
                for violation in result.violations:
                    with bar.external_write_mode(sys.stderr):
                        print(f"kill {result.kill.number}: {violation}", file=sys.stderr)
                if result.violations and options.bug:
                    break
    finally:
        # Interrupted or not, what was found is there.
        summary = summarize(results)
        text = json.dumps(as_json(summary, settings)) if options.json else render(summary, settings)
        print(text, flush=True)
    if options.bug:
        return 0 if summary.violations else 1
    return 0 if summary.clean and summary.kills else 1


def _torture_nobody(options: argparse.Namespace, settings: Any) -> int:
    from tqdm import tqdm

    from colobench.lab.torture.run import run_clean

    found = {}
    with tqdm(total=options.clean, unit=" checkpoints", disable=None, leave=False) as bar:
        for output, judgement in run_clean(
            options.clean, settings, progress=lambda done, total: bar.update(done - bar.n)
        ):
            found[output] = judgement
    clean = all(each.linearizable and not each.violations for each in found.values())
    if options.json:
        shown = {output: asdict(judgement) for output, judgement in found.items()}
        print(json.dumps({"checkpoints": options.clean, "clean": clean, "outputs": shown}))
    else:
        for output, judgement in found.items():
            undecided = [f"undecided: {sentence}" for sentence in judgement.undecided]
            wrong = "; ".join([*judgement.violations, *undecided]) or "no alarm"
            print(f"{output}: {judgement.operations:,} operations checked: {wrong}")
    return 0 if clean else 1


def _report_writer(path: Path) -> Any:
    """Give what writes the report; a report that cannot be written is said before the run."""
    check_output_file(path)
    _require_bokeh("the report")
    from colobench.lab.report.html import write_report

    return write_report


def _require_bokeh(what: str) -> None:
    if find_spec("bokeh") is None:
        raise LocalError(
            f"{what} needs bokeh, which is not installed: pip install 'colobench[lab]'"
        )


def _machine_line(machine: dict[str, Any]) -> str:
    return (
        f"on {machine['cores']} cores of {machine['processor']}, one thread's memcpy at "
        f"{machine['memcpy_gb_per_s']} GB/s"
    )


def _compile_all_kernels() -> int:
    """Compile all kernels that are not in the cache, with a bar; gives how many there are."""
    from tqdm import tqdm

    from colobench.kernels.warmup import Step, kernels_in
    from colobench.node.kernels import all_kernel_modules, compile_kernels

    with tqdm(unit=" kernels", leave=False, disable=None) as bar:

        def progress(step: Step) -> None:
            bar.total = step.total
            bar.set_description_str(f"compiled {step.name}")
            bar.update(step.done - bar.n)
            if step.seconds > _SILENT_SECONDS and bar.disable:
                # No terminal: a line for each, so that a log shows that it goes on.
                _say_error(
                    f"kernel {step.done} of {step.total}, {step.name}, "
                    f"was ready after {step.seconds:.0f} s"
                )

        compile_kernels(all_kernel_modules(), progress)
    return len(kernels_in(all_kernel_modules()))


def _warmup(options: argparse.Namespace) -> int:
    print(f"{_compile_all_kernels()} kernels are ready")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.lab.bench.context import BenchContext
    from colobench.lab.bench.run import run, subjects

    if options.list:
        width = max(map(len, subjects()))
        for each in subjects().values():
            print(f"{each.name:<{width}}  {each.words}")
        print(
            f"{'pause':<{width}}  the steps of a checkpoint's pause; only by this name, and alone"
        )
        return 0
    if "pause" in options.names:
        return _bench_pause(options)
    if options.html is not None:
        _require_bokeh("the page")
    _compile_all_kernels()
    rows: list[Row] = []
    with BenchContext(peers=options.peers) as context:
        try:
            with tqdm(unit=" rows", disable=None, leave=False) as bar:

                def progress(what: str, done: int, total: int) -> None:
                    bar.total = total
                    bar.set_description_str(what)
                    bar.update(done - bar.n)

                for row in run(options.names, context, progress):
                    rows.append(row)
        finally:
            # Interrupted or not, what was measured is there.
            _show_bench(options, rows)
    for failure in context.failures:
        print(f"colobench bench: failed: {failure}", file=sys.stderr)
    return 1 if context.failures else 0


def _bench_pause(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.lab.bench import pause
    from colobench.lab.bench.context import BenchContext
    from colobench.processes.hostinfo import describe_everything

    if options.names != ["pause"] or options.html is not None or options.peers:
        raise LocalError("bench pause: expected no other name, no --html and no --peers")
    _compile_all_kernels()
    profiles = []
    with BenchContext() as context, tqdm(unit=" profiles", disable=None, leave=False) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description_str(what)
            bar.update(done - bar.n)

        for each in pause.profile(context, progress):
            profiles.append(each)
            bar.write(pause.render([each]) + "\n")
    if options.json is not None:
        machine = describe_everything() | {"colobench": __version__}
        write_output_file(
            options.json, json.dumps(pause.as_json(machine, profiles), indent=1) + "\n"
        )
    return 0


def _show_bench(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Write the files that were asked for, and print the rows."""
    from colobench.lab.bench.run import as_json
    from colobench.lab.bench.text import render
    from colobench.processes.hostinfo import describe_everything

    try:
        if options.json is not None or options.html is not None:
            machine = describe_everything(qemu=options.peers) | {"colobench": __version__}
            if options.json is not None:
                text = json.dumps(as_json(machine, rows), indent=1) + "\n"
                write_output_file(options.json, text)
            if options.html is not None:
                from colobench.lab.bench.page import write_bench_page

                print(f"page: {write_bench_page(options.html, machine, rows)}", file=sys.stderr)
    finally:
        # Hours of measuring are not lost with a file.
        if rows:
            print(render(rows), flush=True)


def _lab(options: argparse.Namespace) -> int:
    from colobench.lab.material import DIRECTORY, INDEX, copy_material, served_in_place

    if find_spec("jupyterlab") is None:
        raise LocalError("JupyterLab is not installed: pip install 'colobench[lab]'")
    root = served_in_place() if options.directory is None else None
    if root is None:
        copied = copy_material(options.directory or Path(DIRECTORY))
        print(copied, flush=True)
        root = copied.directory
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    # What the notebooks link to is beside their directory, so that is not the one to be served.
    command += [f"--LabApp.default_url=/lab/tree/{INDEX}", *options.further]
    if os.geteuid() == 0:
        # In a container one often is root, and JupyterLab wants to be told that it is meant.
        command.append("--allow-root")
    return subprocess.run(command, check=False).returncode


def _announce(check: str) -> None:
    """Say on a terminal which check runs; its finding is printed over that."""
    if sys.stdout.isatty():
        print(f"  {check} …\x1b[K", end="\r", flush=True)


def _doctor(options: argparse.Namespace) -> int:
    from colobench import doctor

    if options.json:
        print(doctor.render_json(doctor.examine()))
    else:
        for finding in doctor.examine(_announce):
            print(doctor.render([finding]))
    return 0


def _protocol(options: argparse.Namespace) -> int:
    from colobench.protocol import colo, failover, table

    drawings = {
        f"primary, {variant.name}": (colo.primary_table(variant), colo.ColoState.MIGRATING)
        for variant in colo.VARIANTS.values()
    }
    drawings |= {
        f"secondary, {variant.name}, {layout.value}": (
            colo.secondary_table(variant, layout),
            colo.ColoState.MIGRATING,
        )
        for variant in colo.VARIANTS.values()
        for layout in colo.Layout
    }
    for title, (drawn, start) in drawings.items():
        print(f"{title}\n")
        print(table.mermaid(drawn, start) if options.mermaid else table.text(drawn), end="\n\n")
    print("failover\n")
    none = failover.FailoverState.NONE
    print(
        table.mermaid(failover.FAILOVER, none) if options.mermaid else table.text(failover.FAILOVER)
    )
    return 0
