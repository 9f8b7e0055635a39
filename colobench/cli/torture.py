"""``colobench torture``: kill nodes of serving pairs, and check the clients' answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from colobench.cli.options import (
    add_settings_options,
    chosen_settings,
    new_file,
    positive_number,
    whole_number,
)
from colobench.errors import LocalError
from colobench.fields.command_line import given_options
from colobench.lab.torture.museum import Exhibit, exhibit
from colobench.lab.torture.settings import DECIDED, TortureSettings
from colobench.settings.transport import PageTransport

if TYPE_CHECKING:
    from colobench.lab.torture.kill_plan import Kill
    from colobench.lab.torture.kill_results import Results

#: Options of a plan of kills, and what they are if they are left out.
_OF_PLAN = {
    "kills": 20,
    "seed": 1,
    "jobs": 1,
    "transport": None,
    "double": False,
    "layers": None,
    "results": None,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("--kills", type=positive_number, metavar="N", help="number of kills [20]")
    add("--seed", type=whole_number, help="seed of the plan of kills [1]")
    add(
        "--jobs",
        type=positive_number,
        metavar="N",
        help="pairs that run at the same time [1]",
    )
    add(
        "--transport",
        action="append",
        metavar="NAME",
        help="transport of some pairs; may be repeated [stream, multifd and memfd]",
    )
    add(
        "--output",
        action="append",
        choices=["buffer", "compare"],
        help="output of some pairs; may be repeated [both]",
    )
    add(
        "--double",
        action="store_true",
        help="kill the other node, too, at once or after its takeover, and start a pair on the "
        "disk that is left",
    )
    add(
        "--layers",
        action="append",
        choices=["ram", "directory"],
        help="where some secondaries keep the layers of their disks; may be repeated "
        "[that of --disk-buffer]",
    )
    words = "JSON file with a line for each kill; kills that it has are not repeated"
    add("--results", type=new_file, metavar="FILE", help=words)
    add("--clean", type=positive_number, metavar="N", help="take N checkpoints without a kill")
    add("--json", action="store_true", help="print the summary as one JSON object")
    # Every checkpoint is judged.
    left_out = (*DECIDED, "seed", "keep_records")
    add_settings_options(parser, TortureSettings(), leave_out=left_out)
    parser.set_defaults(**_OF_PLAN)
    parser.epilog = "With --bug, torture stops when the bug is caught: see docs/bug-museum.md."


def run(options: argparse.Namespace) -> int:
    """Kill by plan, and print the results."""
    from colobench.lab.torture.kill_plan import SECONDS, SIDES, plan, points_of_capture
    from colobench.lab.torture.kill_results import Results

    settings, shown = _settings(options)
    if shown is not None and not shown.catch.kills:
        # How many kills there are at most is said for all bugs alike.
        of_kills = [each for each in _OF_PLAN if each not in ("kills", "seed")]
        _check_without(f"--bug {shown.bug.value}", options, *of_kills, "output", "clean")
        if settings != TortureSettings().override(**shown.changes()):
            raise LocalError(
                f"torture --bug {shown.bug.value}: expected no other settings, as it is caught "
                "without a kill, found some"
            )
        return _catch_without_kills(shown, options)
    outputs = options.output or (shown.outputs if shown else _outputs(options, settings))
    if options.clean:
        if options.transport:
            raise LocalError(
                "torture --clean: expected a transport as a part of --strategy, such as "
                f"colo_v12,transport=memfd, found --transport {options.transport[0]}"
            )
        _check_without("--clean", options, *_OF_PLAN)
        return _torture_nobody(options, settings, outputs)
    checkpoint = settings.pair.checkpoint
    points = points_of_capture(checkpoint.capture, checkpoint.encoding, checkpoint.layout)
    planned = plan(
        options.seed,
        options.kills,
        transports=options.transport or _transports(options, settings),
        outputs=outputs,
        victims=shown.victims if shown else SIDES,
        points=shown.points if shown else points,
        seconds=SECONDS if options.double else shown.seconds if shown else (None,),
        layers=options.layers or (None,),
    )
    file = None if options.results is None else Results(options.results)
    with nullcontext() if file is None else file.alone():
        return _run_plan(options, planned, settings, shown, file)


def _run_plan(
    options: argparse.Namespace,
    planned: Sequence[Kill],
    settings: TortureSettings,
    shown: Exhibit | None,
    file: Results | None,
) -> int:
    """Make the kills of a plan that the file of results lacks."""
    from tqdm import tqdm

    from colobench.lab.torture.kill_results import summarize
    from colobench.lab.torture.run import torture
    from colobench.lab.torture.text import as_json, render

    results = [] if file is None else file.load()
    left = planned if file is None else file.remaining(planned, settings.of_result)
    if shown and any(result.violations for result in results):
        left = []
    bar = tqdm(total=len(planned), initial=len(planned) - len(left), unit=" kills", disable=None)
    try:
        # Whatever ends this, kills that are under way are finished, and leave no image.
        kills = torture(left, settings, jobs=options.jobs, say=bar.set_description_str)
        with bar, closing(kills):
            for result in kills:
                results.append(result)
                if file is not None:
                    file.append(result)
                bar.update()
                for violation in result.violations:
                    with bar.external_write_mode(sys.stderr):
                        print(f"kill {result.kill.number}: {violation}", file=sys.stderr)
                if result.violations and shown:
                    break
    finally:
        # Interrupted or not, what was found is there.
        summary = summarize(results)
        if options.json:
            print(json.dumps(as_json(summary, settings)), flush=True)
        elif results:
            print(render(summary, settings), flush=True)
    if shown:
        return 0 if summary.violations else 1
    return 0 if summary.clean else 1


def _catch_without_kills(shown: Exhibit, options: argparse.Namespace) -> int:
    """Catch a bug that no kill is needed for, and print what shows it."""
    from tqdm import tqdm

    from colobench.lab.torture.bug_hunt import hunt_bug

    with tqdm(unit=" steps", disable=None, leave=False) as bar:

        def say(words: str) -> None:
            bar.set_description_str(words)
            bar.update()

        hunt = hunt_bug(shown.bug.value, options.kills, say=say)
    if options.json:
        found = {"bug": shown.bug.value, "catch": shown.catch.value, "evidence": hunt.evidence}
        print(json.dumps(found))
    else:
        print(hunt)
    return 0 if hunt.caught else 1


def _check_without(what: str, options: argparse.Namespace, *names: str) -> None:
    """Refuse options that would have no effect."""
    for each in names:
        found = getattr(options, each)
        if found != _OF_PLAN.get(each):
            words = "" if found is True else f" {found[0] if isinstance(found, list) else found}"
            raise LocalError(f"torture {what}: expected no --{each}, found --{each}{words}")


def _settings(options: argparse.Namespace) -> tuple[TortureSettings, Exhibit | None]:
    """Give the settings, with all that a planted bug takes; and the bug's exhibit, if any."""
    settings = TortureSettings()
    named = given_options(options, TortureSettings).get("bug")
    if named is not None:
        settings = settings.override(**exhibit(named).changes())
    settings = chosen_settings(options, settings, "torture", indifferent=(*DECIDED, "trigger"))
    bug = settings.pair.experiment.bug
    return settings, None if bug is None else exhibit(bug.value)


def _transports(options: argparse.Namespace, settings: TortureSettings) -> Sequence[str]:
    """Give the transports of the plan: the strategy's, or those that the settings go with."""
    from colobench.lab.torture.kill_plan import TRANSPORTS

    checkpoint = settings.pair.checkpoint
    if options.strategy is not None:
        return [str(checkpoint.transport).removesuffix("+unix")]
    return [each for each in TRANSPORTS if settings.go_with(checkpoint.output.value, each)]


def _outputs(options: argparse.Namespace, settings: TortureSettings) -> Sequence[str]:
    """Give the ways of output of the plan, see `_transports`."""
    from colobench.lab.torture.kill_plan import OUTPUTS

    if options.strategy is not None:
        return [settings.pair.checkpoint.output.value]
    pages = PageTransport.STREAM.value
    return [each for each in OUTPUTS if settings.go_with(each, pages)]


def _torture_nobody(
    options: argparse.Namespace, settings: TortureSettings, outputs: Sequence[str]
) -> int:
    from tqdm import tqdm

    from colobench.lab.torture.run import run_clean
    from colobench.lab.torture.text import clean_as_json

    found = {}
    with tqdm(total=options.clean, unit=" checkpoints", disable=None, leave=False) as bar:
        for output, judgement in run_clean(
            *(options.clean, settings, outputs),
            progress=lambda done, total: bar.update(done - bar.n),
        ):
            found[output] = judgement
    if options.json:
        print(json.dumps(clean_as_json(options.clean, found, settings)))
    else:
        for output, judgement in found.items():
            undecided = [f"undecided: {sentence}" for sentence in judgement.undecided]
            wrong = "; ".join([*judgement.violations, *undecided]) or "no alarm"
            print(f"{output}: {judgement.operations:,} operations checked: {wrong}")
    return 0 if all(each.clean for each in found.values()) else 1
