"""The program `penstock-chaos`: run, list, check, report.

Exit codes: 0 valid, 1 invalid (of `check` and `run`), 2 wrong usage, 3 unknown: nothing can be said, or the run could
not be begun.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock import __version__
from penstock.chaos import plan as plans
from penstock.chaos.cluster import ClusterError
from penstock.chaos.history import HistoryError
from penstock.chaos.junit import Case, case_of, write_junit
from penstock.chaos.listing import listed_faults
from penstock.chaos.report import write_report
from penstock.chaos.run import INVALID, RUN, UNKNOWN, VALID, VERDICT, Document, Run, RunError, RunOptions, judge
from penstock.chaos.scenario import SCENARIOS, Scenario
from penstock.chaos.status import summary
from penstock.chaos.toxiproxy_api import ToxiproxyError

EXIT = {VALID: 0, INVALID: 1, UNKNOWN: 3}
DEFAULT_OUT = Path("chaos-runs")
_ENDED_BY_USER = 130

app = typer.Typer(
    help="Fault injection for Penstock, and the proof that what was acknowledged survives.\n\n\b\n"
    "Begin with: penstock-chaos run --scenario combined --duration 300",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


class ListFormat(StrEnum):
    """How `list` writes."""

    TEXT = "text"
    JSON = "json"


def say(text: str) -> None:
    """Write a line for people to standard error."""
    print(text, file=sys.stderr, flush=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock-chaos {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version  # its callback has done the work


@app.command()
def run(  # noqa: PLR0913, PLR0917  the options of one command
    scenario: Annotated[str, typer.Option("--scenario", "-s", help="Names, comma separated; see `list`.")] = "combined",
    seed: Annotated[int | None, typer.Option(help="Decides faults and load. Default: 1.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs, A:B is A to B-1.")] = None,
    duration: Annotated[float | None, typer.Option(min=1, help="Seconds of faults, instead of the scenario's.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs' folders go.")] = DEFAULT_OUT,
    cluster: Annotated[Path | None, typer.Option(help="A cluster file: use that cluster, not one of our own.")] = None,
    schedule: Annotated[Path | None, typer.Option(help="run.json of a run whose faults are to come again.")] = None,
    faults: Annotated[str | None, typer.Option(help="Only these faults of the scenario's, comma separated.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="One line a run is added here; runs that have one already are left out.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.")] = None,
) -> None:
    """Run scenarios and say whether everything that was acknowledged is there, in order, once."""
    chosen = [_only(_scenario(name), faults) for name in scenario.split(",")]
    done = _done(results)
    cases: list[Case] = []
    worst = VALID
    for each in chosen:
        for number in _seeds(seed, seeds):
            if (each.name, number) in done:
                say(f"{each.name}, seed {number}: done before, {done[each.name, number]}")
                continue
            folder = _folder(out, each, number)
            options = RunOptions(each, number, folder, duration, cluster, _schedule(schedule), say=say)
            began = time.monotonic()
            document = _perform(options)
            worst = max(worst, document["verdict"], key=[VALID, UNKNOWN, INVALID].index)
            cases.append(case_of(document, _read(folder / RUN), time.monotonic() - began))
            _note(results, each, number, document, folder)
    if junit is not None:
        write_junit(junit, cases)
    raise typer.Exit(EXIT[worst])


def _perform(options: RunOptions) -> Document:
    """Run one; its verdict."""
    say(f"{options.scenario.name}, seed {options.seed}, in {options.folder}")
    try:
        document = Run(options).perform()
    except (RunError, ToxiproxyError) as error:
        say(f"penstock-chaos: {error}")
        raise typer.Exit(EXIT[UNKNOWN]) from error
    except KeyboardInterrupt:
        say(f"broken off; what there is can be looked at: penstock-chaos check {options.folder}")
        raise typer.Exit(_ENDED_BY_USER) from None
    write_report(options.folder)
    typer.echo(summary(document, _read(options.folder / RUN), options.folder))
    return document


@app.command("list")
def list_(
    cluster: Annotated[Path | None, typer.Option(help="What can be done to the cluster of this file.")] = None,
    format_: Annotated[ListFormat, typer.Option("--format", help="text or json.")] = ListFormat.TEXT,
) -> None:
    """List scenarios and faults, and which faults cannot be done here and why."""
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        faults = listed_faults(Path(folder), cluster)
    scenarios = [
        {"name": each.name, "summary": each.summary, "duration_s": each.duration_s} for each in SCENARIOS.values()
    ]
    if format_ is ListFormat.JSON:
        typer.echo(json.dumps({"scenarios": scenarios, "faults": faults}, indent=1))
        return
    typer.echo("Scenarios:")
    for found in SCENARIOS.values():
        typer.echo(f"  {found.name:18} {found.duration_s:5.0f} s  {found.summary}")
    typer.echo("\nFaults:")
    for fault in faults:
        missing = f"\n{'':36}not here: {fault['missing']}" if fault["missing"] else ""
        typer.echo(f"  {fault['group']:12}{fault['name']:22}{fault['summary']}{missing}")


@app.command("check")
def check_(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
) -> None:
    """Check the history of a run again."""
    document = judge(_existing(folder))
    typer.echo(summary(document, _read(folder / RUN), folder))
    raise typer.Exit(EXIT[document["verdict"]])


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
) -> None:
    """Make the HTML report of a run again."""
    if not (_existing(folder) / VERDICT).exists():
        judge(folder)
    typer.echo(str(write_report(folder)))


def _scenario(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise typer.BadParameter(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def _only(scenario: Scenario, faults: str | None) -> Scenario:
    if faults is None:
        return scenario
    names = faults.split(",")
    if unknown := [name for name in names if name not in scenario.profile.weights]:
        raise typer.BadParameter(f"scenario {scenario.name} has no faults {', '.join(unknown)}")
    return scenario.with_faults(names)


def _seeds(seed: int | None, seeds: str | None) -> Sequence[int]:
    if seeds is None:
        return [1 if seed is None else seed]
    first, separator, last = seeds.partition(":")
    if seed is not None or not (separator and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise typer.BadParameter("say either --seed N or --seeds A:B with A below B")
    return range(int(first), int(last))


def _schedule(path: Path | None) -> plans.Plan | None:
    if path is None:
        return None
    try:
        return plans.from_json(_read(path)["schedule"])
    except (KeyError, plans.PlanError) as error:
        raise typer.BadParameter(f"{path} holds no schedule: {error}") from error


def _folder(out: Path, scenario: Scenario, seed: int) -> Path:
    """Give a folder that is not there yet."""
    name = f"{scenario.name}-{seed}"
    taken = {path.name for path in out.glob(f"{name}*")}
    return out / next(n for n in (name, *(f"{name}.{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _done(results: Path | None) -> dict[tuple[str, int], str]:
    if results is None or not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text().splitlines() if line.strip()]
    return {(row["scenario"], row["seed"]): row["verdict"] for row in rows}


def _note(results: Path | None, scenario: Scenario, seed: int, document: Document, folder: Path) -> None:
    if results is None:
        return
    row = {
        "scenario": scenario.name,
        "seed": seed,
        "verdict": document["verdict"],
        "duration_s": document["measures"]["duration_s"],
        "records": document["measures"]["records"],
        "judged": document["measures"]["judged"],
        "aims": document["aims"],
        "folder": str(folder),
    }
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _existing(folder: Path) -> Path:
    if not (folder / RUN).exists():
        raise typer.BadParameter(f"{folder} is no run's folder: it has no {RUN}")
    return folder


def _read(path: Path) -> Document:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
    return found


def main() -> None:
    """Entry point."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: heal, and end what was begun
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when the first channel is made; cuts are no news to it
    try:
        app(prog_name="penstock-chaos")
    except (ClusterError, HistoryError, ToxiproxyError) as error:
        say(f"penstock-chaos: {error}")
        sys.exit(EXIT[UNKNOWN])
