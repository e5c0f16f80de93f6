"""Run the workloads on Penstock, the ceiling and the peers, and report.

    python -m benchmarks run [--short | --quick] [--systems a,b] [--workloads a,b] [--repeats N] [--out FOLDER]
                             [--folder DIR] [--minutes M] [--resume]
    python -m benchmarks report RESULTS.json ... [--into DOCUMENT] [--out FOLDER] [--soak SOAK.json]
    python -m benchmarks list

`run` writes FOLDER/results.json after every single run, and at the end, also of a run that was interrupted, a report
and plots beside it. The data of the systems goes below DIR, which must be a disk. `report` reads one file or several.

Exit code 0: everything ran. 1: something failed. 2: it could not begin. 130: interrupted.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import archive, machine, plan, registry, report
from benchmarks.disks import NoDiskError, check_disk
from benchmarks.suite import Ground, Suite, uninterrupted
from benchmarks.summary import Summary
from benchmarks.workloads import Workload, workloads

RESULTS = "results.json"
PREFERRED = ("penstock", "limit")
"""First in every order."""


class UsageError(Exception):
    """What was asked for cannot be done; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        code: int = asked.work(asked)
    except (UsageError, NoDiskError, archive.ArchiveError, report.ReportError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure")
    form = run.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help="fewer records and seconds, the same shapes")
    form.add_argument("--quick", action="store_true", help="short, and without " + ", ".join(plan.QUICK_LEFT_OUT))
    run.add_argument("--systems", default="", help="names, comma separated; default: all")
    run.add_argument("--workloads", default="", help="names, comma separated; default: all")
    run.add_argument("--repeats", type=int, default=0, help="default: 5; short and quick: 1")
    run.add_argument("--out", type=Path, default=Path("bench-results"), help="where the results go")
    run.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the systems' data goes")
    run.add_argument("--minutes", type=float, default=math.inf, help="leave out what would not be done by then")
    run.add_argument(
        "--resume", action="store_true", help="go on with the results that are there: what did not fail stays"
    )
    run.set_defaults(work=_run)
    shown = commands.add_parser("report", help="tables and plots of results")
    shown.add_argument("results", type=Path, nargs="+")
    shown.add_argument("--into", type=Path, help="a document with the two marks of a report; plots go beside it")
    shown.add_argument("--out", type=Path, help="write report.txt and the plots to this folder")
    shown.add_argument("--soak", type=Path, help="the file of benchmarks.soak")
    shown.set_defaults(work=_report)
    listed = commands.add_parser("list", help="the systems and the workloads")
    listed.set_defaults(work=_list)
    return parser


# -- run


def _run(asked: argparse.Namespace) -> int:
    short = asked.short or asked.quick
    systems = _chosen(asked.systems, list(dict.fromkeys((*PREFERRED, *registry.MODULES))), "system")
    every = workloads(short=short)
    names = [w.name for w in every if not (asked.quick and w.name in plan.QUICK_LEFT_OUT)]
    wanted = _chosen(asked.workloads, [w.name for w in every], "workload") if asked.workloads else names
    chosen = [w for w in every if w.name in wanted]
    check_disk(asked.folder)
    asked.out.mkdir(parents=True, exist_ok=True)
    results = _results(asked, chosen, short=short)
    turns = plan.turns(systems, chosen, asked.repeats or (1 if short else 5))
    ground = Ground(asked.folder, asked.out / RESULTS, registry.system)
    suite = Suite(ground, results, turns, limit_s=asked.minutes * 60)
    interrupted = False
    try:
        suite.prepare(systems)
        suite.run()
    except KeyboardInterrupt:
        interrupted = True
    with uninterrupted():
        _finish(results, asked.out)
    if interrupted:
        return 130
    return 1 if results.failed else 0


def _chosen(asked: str, known: Sequence[str], what: str) -> list[str]:
    """Give those asked for, in the order of the known. Raises UsageError."""
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(f"there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in wanted or not wanted]


def _results(asked: argparse.Namespace, chosen: list[Workload], *, short: bool) -> archive.Results:
    """Begin anew (the last file is kept beside), or go on with what the file has. Raises UsageError."""
    file: Path = asked.out / RESULTS
    began = datetime.now(UTC).isoformat(timespec="seconds")
    if asked.resume and file.exists():
        before = archive.load(file)
        if any(w != old for w in chosen for old in before.workloads if w.name == old.name):
            raise UsageError(f"{file} is of another form (short or full); go on in that one, or use another --out")
        known = {w.name for w in before.workloads}
        before.workloads += [w for w in chosen if w.name not in known]
        before.skipped.clear()  # it is tried again
        before.left_out.clear()
        return before
    if file.exists():
        file.replace(file.with_suffix(".before.json"))
    return archive.Results(machine.describe(asked.folder), chosen, short, began)


def _finish(results: archive.Results, folder: Path) -> None:
    """Report what there is."""
    summary = Summary(results)
    files = [folder / RESULTS, *report.write_folder(summary, folder)]
    sys.stdout.write(report.text(summary))
    sys.stderr.write("written: " + ", ".join(str(file) for file in files) + "\n")


# -- report, list


def _report(asked: argparse.Namespace) -> int:
    summary = Summary(archive.merge([archive.load(path) for path in asked.results]))
    soak = report.read_soak(asked.soak)
    files = []
    if asked.into:
        files += report.write_into(asked.into, summary, soak)
    if asked.out:
        files += report.write_folder(summary, asked.out, soak)
    if files:
        sys.stderr.write("written: " + ", ".join(str(file) for file in files) + "\n")
    else:
        sys.stdout.write(report.text(summary, soak))
    return 0


def _list(_: argparse.Namespace) -> int:
    sys.stdout.write("systems: " + ", ".join(registry.MODULES) + "\nworkloads:\n")
    for workload in workloads(short=False):
        sys.stdout.write(f"  {workload.name}: {_describe(workload)}\n")
    return 0


def _describe(workload: Workload) -> str:
    amount = f"{workload.rate}/s for {workload.seconds:g} s" if workload.rate else f"{workload.records} records"
    topic = f"{workload.partitions} partitions, RF{workload.replication} acks={workload.acks}"
    return f"{workload.kind}, {amount} of {workload.record_bytes} B, {topic}, seen as {workload.form}"


if __name__ == "__main__":
    sys.exit(main())
