"""The runner of simulated worlds, on worlds and mutants of nothing (`runner/toy*.py`), and replay of the real ones."""

import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.runner import found, mutants, progress, sources, tables, toy, worlds
from tests.simulation.runner.__main__ import seed_range
from tests.simulation.runner.pool import ROOT
from tests.simulation.runner.results import SAMPLE, Chunk, Results, Tally, split
from tests.simulation.runner.shrink import Plan, Shrinker
from tests.simulation.runner.worker import Report

TOY = "tests.simulation.runner.toy"
MUTANTS = "tests.simulation.runner.toy_mutants"


def runner(*arguments: object, once: Path | None = None, hash_seed: str = "0") -> "subprocess.CompletedProcess[str]":
    """Run the runner; its output ends only when no process of it is left."""
    command = [sys.executable, "-m", "tests.simulation.runner", *(str(argument) for argument in arguments)]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    if once is not None:
        once.touch()
        environment["TOY_FILE"] = str(once)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)


def simulate(
    path: Path, seeds: str, *more: object, jobs: int = 2, **options: Any
) -> "subprocess.CompletedProcess[str]":
    where = ("--world", TOY, "--seeds", seeds, "--results", path / "results.jsonl", "--jobs", jobs)
    return runner("simulate", *where, *more, **options)


def digest(output: str) -> str:
    return output.rpartition("digest ")[2].split()[0]


def noted(path: Path) -> list[tuple[int, int]]:
    lines = (path / "results.jsonl").read_text().splitlines()
    return sorted((line["first"], line["stop"]) for line in map(json.loads, lines))


# --- runs -------------------------------------------------------------------------------------------------------------


def test_all_seeds_are_run_once_whatever_the_jobs_and_earlier_runs(tmp_path: Path) -> None:
    alone = simulate(tmp_path / "alone", "0:230", jobs=1)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "230 worlds, 0 failed, 6900 events" in alone.stdout
    assert "\n  actions 6900\n" in alone.stdout
    assert "12 seeds run again in other processes and order: traces alike" in alone.stdout
    parts = tmp_path / "parts"
    assert simulate(parts, "100:150").returncode == 0
    whole = simulate(parts, "0:230", jobs=3, hash_seed="7")
    assert "50 done before" in whole.stdout
    assert digest(whole.stdout) == digest(alone.stdout)
    assert sum(stop - first for first, stop in noted(parts)) == 230


def test_a_killed_run_is_taken_up_where_it_was(tmp_path: Path) -> None:
    seeds = f"{toy.KILLS - 40}:{toy.KILLS + 20}"
    killed = simulate(tmp_path, seeds, jobs=1, once=tmp_path / "once")
    assert killed.returncode == -9
    assert noted(tmp_path)[-1][1] == toy.KILLS
    again = simulate(tmp_path, seeds, jobs=1)
    assert "40 done before" in again.stdout
    assert "60 worlds, 0 failed" in again.stdout
    assert digest(again.stdout) == digest(simulate(tmp_path / "other", seeds).stdout)


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    seeds = f"{toy.INTERRUPTS - 45}:{toy.INTERRUPTS + 20}"
    stopped = simulate(tmp_path, seeds, jobs=1, once=tmp_path / "once")
    assert stopped.returncode == 130
    assert "of 65, not complete (the same command goes on from here)" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    before = noted(tmp_path)
    again = simulate(tmp_path, seeds, jobs=1)
    assert again.returncode == 0
    assert "65 worlds, 0 failed" in again.stdout
    assert noted(tmp_path)[: len(before)] == before
    assert all(one[1] == other[0] for one, other in itertools.pairwise(noted(tmp_path)))
    assert digest(again.stdout) == digest(simulate(tmp_path / "other", seeds).stdout)


def test_failures_are_told_with_their_replay_and_remembered(tmp_path: Path) -> None:
    done = simulate(tmp_path, f"{toy.LOST}:{toy.DEAD + 1}", "--limit-s", "0.3")
    assert done.returncode == 1
    for told in (
        f"{TOY} seed {toy.LOST}: lost: a record, with 30 actions\n  replay: make replay WORLD={TOY} SEED={toy.LOST}\n",
        f"{TOY} seed {toy.SLOW}: slow: nothing happened\n",
        f"{TOY} seed {toy.TRACEBACK}: ZeroDivisionError: division: by zero\n",
        f"{TOY} seed {toy.STUCK}: stuck: not at its end after 0.3 s of CPU\n",
        f"{TOY} seed {toy.DEAD}: process died: SIGABRT\n",
        f"{toy.DEAD - toy.LOST + 1} worlds, 5 failed",
        "shrunk from 30 actions to 2 ",
    ):
        assert told in done.stdout
    again = simulate(tmp_path, f"{toy.LOST}:{toy.DEAD + 1}", "--shrink-s", "0")
    assert again.returncode == 1
    assert f"{TOY} seed {toy.STUCK}: stuck" in again.stdout
    assert "201 done before" in again.stdout


def test_a_run_with_too_many_failures_ends_early(tmp_path: Path) -> None:
    done = simulate(tmp_path, f"{toy.LOST}:{toy.STUCK}", "--failures", "1", "--shrink-s", "0", jobs=1)
    assert done.returncode == 1
    assert "10 worlds of 150, not complete (too many failures), 1 failed" in done.stdout


def test_a_trace_that_is_not_the_same_again_is_a_failure(tmp_path: Path) -> None:
    assert toy.CHANGING % SAMPLE == 0
    done = simulate(tmp_path, f"{toy.CHANGING}:{toy.CHANGING + 3}")
    assert done.returncode == 1
    assert f"{TOY} seed {toy.CHANGING}: not exact: its second run had another trace\n" in done.stdout
    assert f"{TOY} seed {toy.CHANGING}: the traces of two processes part after 30 lines:\n" in done.stdout
    assert "\n    1: the process is " in done.stdout
    assert "\n    2: the process is " in done.stdout
    alike = runner("replay", "--world", TOY, "--seed", 1, "--twice", "yes")
    assert alike.stdout == f"{TOY} seed 1: the traces of two processes are alike (30 lines)\n"
    assert alike.returncode == 0


def test_worlds_that_cannot_be_loaded_are_told() -> None:
    done = runner("simulate", "--world", "tests.simulation.no_such_worlds", "--seeds", "0:1")
    assert done.returncode != 0
    unknown = runner("simulate", "--world", "nothing")
    assert unknown.returncode == 1
    assert "no worlds named 'nothing'" in unknown.stderr


def test_seeds_are_from_and_to() -> None:
    assert seed_range("3:9") == range(3, 9)
    assert seed_range("7") == range(7, 8)
    for wrong in ("", "a:b", "3:3", "9:3", ":"):
        with pytest.raises(Exception, match=r"is not A:B|is empty"):
            seed_range(wrong)


# --- what is noted ----------------------------------------------------------------------------------------------------


def tally(*seeds: int) -> Tally:
    tally = Tally()
    for seed in seeds:
        tally.count(Report(seed, seed * 7, "lost: it" if seed == 3 else None, 2, 0.5, {"crash": 1, f"x{seed % 2}": 2}))
    return tally


def test_tallies_add_up_in_any_order() -> None:
    parts = [tally(0, 1, 2), tally(3), tally(4, 60)]
    for order in itertools.permutations(parts):
        total = Tally()
        for part in order:
            total.add(part)
        assert total == tally(0, 1, 2, 3, 4, 60)
    assert total.rate == 120
    assert total.failures == {3: "lost: it"}
    assert total.facts == {"crash": 6, "x0": 8, "x1": 4}
    assert total.samples == {0: 0, 60: 420}


@pytest.mark.parametrize(
    ("chunks", "left"),
    [
        ([], [range(10, 50)]),
        ([(10, 50)], []),
        ([(20, 30)], [range(10, 20), range(30, 50)]),
        ([(40, 50), (10, 20)], [range(20, 40)]),
        ([(0, 20), (40, 60)], [range(10, 50)]),  # more than asked for cannot be divided
        ([(10, 30), (20, 40), (10, 20)], [range(30, 50)]),
        ([(10, 20), (10, 20)], [range(20, 50)]),
        ([(60, 70)], [range(10, 50)]),
    ],
)
def test_every_seed_is_counted_once(chunks: Sequence[tuple[int, int]], left: list[range]) -> None:
    done, rest = split(range(10, 50), [Chunk(first, stop, tally(*range(first, stop))) for first, stop in chunks])
    assert rest == left
    seeds = set(range(10, 50)) - {seed for part in left for seed in part}
    assert done == tally(*sorted(seeds))


def test_only_whole_lines_of_these_worlds_and_this_code_count(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.jsonl"
    Results(path, "cluster", "v1").add(Chunk(0, 4, tally(0, 1, 2, 3)))
    Results(path, "cluster", "v2").add(Chunk(4, 8, tally(4)))
    Results(path, "consensus", "v1").add(Chunk(8, 9, tally(8)))
    with path.open("a") as file:
        file.write('{"world": "cluster", "version": "v1", "fir')
    Results(path, "cluster", "v1").add(Chunk(9, 10, tally(9)))
    assert list(Results(path, "cluster", "v1").chunks()) == [
        Chunk(0, 4, tally(0, 1, 2, 3)),
        Chunk(9, 10, tally(9)),
    ]
    assert [chunk.first for chunk in Results(path, "cluster", "v2").chunks()] == [4]


def test_the_version_changes_with_the_code(tmp_path: Path) -> None:
    one, other = tmp_path / "a.py", tmp_path / "b.py"
    one.write_text("x = 1")
    other.write_text("y = 2")
    version = sources.hash_of(tmp_path, [other, one], ["3.11"])
    assert version == sources.hash_of(tmp_path, [one, other, one], ["3.11"])
    assert version != sources.hash_of(tmp_path, [one, other], ["3.12"])
    assert version != sources.hash_of(tmp_path, [one], ["3.11"])
    one.write_text("x = 2")
    assert version != sources.hash_of(tmp_path, [one, other], ["3.11"])
    files = {str(path.relative_to(ROOT)) for path in sources.files_of(worlds.KINDS["consensus"])}
    assert {"raft/machine.py", "node/replication/leader.py", "tests/simulation/kernel/loop.py"} <= files
    assert not any(name.startswith(f"tests/simulation/{part}") for name in files for part in ("runner", "test_"))


def test_fresh_seeds_are_the_same_until_the_code_changes() -> None:
    version = "0" * 15 + "5"
    assert sources.fresh_seeds(version, 100) == range(6_000_000, 6_000_100)
    assert sources.fresh_seeds("f" * 16, 100).start >= 1_000_000


# --- replay and shrinking ---------------------------------------------------------------------------------------------


def make(command: str, stdout: str) -> list[str]:
    """Give what make would run for a command that was printed."""
    assert command in stdout
    stamp = ROOT / "no-venv"
    arguments = [*shlex.split(command)[1:], "--dry-run", f"--assume-old={stamp}/.installed-test", f"VENV={stamp}"]
    # Not as a part of the make that runs these tests: that one would say which directory it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    line = shlex.split(done.stdout.splitlines()[-1])
    assert line[:3] == [f"{stamp}/bin/python", "-m", "tests.simulation.runner"]
    return line[3:]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_printed_commands_replay_the_failure_and_its_shrunk_plan(tmp_path: Path) -> None:
    done = simulate(tmp_path, f"{toy.LOST}")
    replay = runner(*make(f"make replay WORLD={TOY} SEED={toy.LOST}", done.stdout), hash_seed="77")
    assert replay.returncode == 1
    assert replay.stdout.endswith(f"hash {toy.run(toy.LOST).hash:016x}\nlost: a record, with 30 actions\n")
    assert replay.stdout.startswith("0.000 ")
    path = tmp_path / "found" / f"{TOY}-{toy.LOST}.json"
    shrunk = runner(*make(f"make replay PLAN={path}", done.stdout))
    assert shrunk.returncode == 1
    assert shrunk.stdout.endswith("lost: a record, with 2 actions\n")
    trace = tmp_path / "new" / "trace"
    assert runner("replay", "--plan", path, "--trace", trace).returncode == 1
    assert trace.read_text() == "".join(f"{line}\n" for line in shrunk.stdout.splitlines()[:2])
    kept = found.read(path)
    assert (kept.name, kept.seed, kept.violation) == (path.stem, toy.LOST, "lost: a record, with 2 actions")
    assert {(action.kind, action.node) for action in kept.actions(toy)} == toy.NEEDED


def test_shrinking_keeps_the_kind_of_failure_and_asks_for_one(tmp_path: Path) -> None:
    whole = tmp_path / "whole.json"
    found.Found("whole", TOY, toy.LOST, None, "", "in words").write(whole)
    target = tmp_path / "small.json"
    done = runner("shrink", "--plan", whole, "--to", target)
    assert done.returncode == 0
    assert f"replay: make replay PLAN={target}" in done.stdout
    small = found.read(target)
    assert small.name == "small"
    assert small.shows == "in words"
    assert small.plan is not None
    assert len(small.plan) == 2
    assert small.run().failure == small.violation == "lost: a record, with 2 actions"
    assert runner("shrink", "--seed", 1, "--world", TOY, "--to", tmp_path / "none").returncode == 1
    assert runner("replay", "--seed", 1, "--world", TOY).returncode == 0
    assert "which world?" in runner("replay").stderr


@pytest.mark.parametrize("name", worlds.KINDS)
def test_a_real_world_replays_in_another_process_and_by_its_plan_in_a_file(name: str, tmp_path: Path) -> None:
    provider = worlds.kind_of(name).load()
    path = tmp_path / "plan.json"
    for seed in (1, 2):
        found.Found("plan", name, seed, tuple(provider.to_json(provider.plan_of(seed))), "").write(path)
        traces = [tmp_path / "one", tmp_path / "other"]
        one = runner("replay", "--world", name, "--seed", seed, "--trace", traces[0], hash_seed="1")
        other = runner("replay", "--plan", path, "--trace", traces[1], hash_seed="77")
        assert one.stdout.splitlines()[:-1] == other.stdout.splitlines()[:-1], one.stderr + other.stderr
        assert f"{name} seed {seed}: a plan of " in one.stdout
        assert traces[0].read_text() == traces[1].read_text()


@pytest.mark.parametrize("needed", [(), (0,), (29,), (3, 7), (0, 15, 29), tuple(range(10, 20)), tuple(range(30))])
async def test_nothing_is_left_that_is_not_needed(needed: tuple[int, ...]) -> None:
    async def fails(plan: Plan) -> bool:
        return set(needed) <= set(plan)

    assert await Shrinker(fails, lambda: False).shrink(range(30)) == (needed, True)


async def test_each_action_of_a_shrunk_plan_is_needed_though_others_would_do() -> None:
    async def fails(plan: Plan) -> bool:
        return sum(plan) % 7 == 0 and len(plan) > 2

    shrinker = Shrinker(fails, lambda: False)
    whole = tuple(range(3, 40))
    assert await fails(whole)
    plan, minimal = await shrinker.shrink(whole)
    assert minimal
    assert await fails(plan)
    assert not any([await fails((*plan[:at], *plan[at + 1 :])) for at in range(len(plan))])
    assert shrinker.tried < 200


async def test_out_of_time_the_smallest_plan_so_far_has_to_do() -> None:
    async def fails(plan: Plan) -> bool:
        return {3, 7} <= set(plan)

    shrinker = Shrinker(fails, lambda: shrinker.tried >= 5)
    plan, minimal = await shrinker.shrink(range(1000))
    assert not minimal
    assert {3, 7} <= set(plan)
    assert len(plan) < 100
    assert await Shrinker(fails, lambda: True).shrink(range(10)) == (tuple(range(10)), False)


def test_a_violation_is_named_by_what_stands_before_the_colon() -> None:
    assert worlds.violation_of("lost: b'1' was: here") == "lost"
    assert worlds.violation_of('Traceback (most recent call last):\n  File "x"\nKeyError: 3\n') == "KeyError"
    assert worlds.violation_of("") == ""


# --- mutants ----------------------------------------------------------------------------------------------------------


def test_a_mutant_that_survives_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    done = runner("mutants", "--world", MUTANTS, "--jobs", 2, "--limit-s", "0.3", "--markdown", path)
    assert done.returncode == 1
    rows = {line[:14].strip(): " ".join(line.split()) for line in done.stdout.splitlines()}
    for name, verdict in {
        "found at once": "seed 0 (1 of 10)",
        "found later": "seed 5 (6 of 10)",
        "found from 100": "seed 103 (4 of 10)",
        "survives": "SURVIVES 10 seeds",
        "found too late": "SURVIVES 10 seeds",
        "raises": "NOT CAUGHT: ValueError: no such rule",
        "not the mutant": f"NOT CAUGHT: seed {toy.LOST} fails without it too: lost: a record, with 30 actions",
        "endless": "NOT CAUGHT: no answer after 0.3 s of CPU",
    }.items():
        assert f"{name} 7 {MUTANTS} {verdict} " in rows[name]
    assert "3 of 8 mutants caught" in done.stdout
    text = path.read_text()
    assert f"| found later | 7 | a \\| b | {MUTANTS} | seed 5, the 6th | 10 seeds |  |\n" in text
    assert len(text.splitlines()) == 10


def test_one_mutant_is_found_by_its_name_or_its_beginning() -> None:
    def names(name: str) -> list[str]:
        return [mutant.name for _, _, mutant in mutants.chosen({"toy": MUTANTS}, name)]

    assert names("found at once") == ["found at once"]
    assert names("found") == ["found at once", "found later", "found from 100", "found too late"]
    with pytest.raises(SystemExit, match="no mutant named 'x'"):
        names("x")
    done = runner("mutants", "--world", MUTANTS, "--mutant", "found at once")
    assert done.returncode == 0
    assert "1 of 1 mutants caught" in done.stdout


def test_a_killed_runner_leaves_no_mutant(tmp_path: Path) -> None:
    assert runner("mutants", "--world", MUTANTS, once=tmp_path / "once").returncode == -9


@pytest.mark.parametrize("module", mutants.modules_of(worlds.ALL).values())
def test_tables_are_complete(module: str) -> None:
    table = tables.load(module)
    entries = list(table.MUTANTS)
    assert len({mutant.name for mutant in entries}) == len(entries)
    for mutant in entries:
        assert mutant.rule
        assert mutant.what
        assert mutant.budget > 0 or tables.traces_of(module, mutant)


# --- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_a_minute_or_one_line_on_a_terminal() -> None:
    now = 0.0
    log, terminal = io.StringIO(), Terminal()
    shown = [progress.Progress("cluster", 1000, stream, lambda: now) for stream in (log, terminal)]
    for second in range(0, 121, 10):
        now = float(second)
        for one in shown:
            one.show(100 + 2 * second, before=100, rate=310.4, failed=1)
    assert log.getvalue().splitlines() == [
        "cluster: 220/1000 worlds, 310 a minute and core, 1 failed, 6 min left",
        "cluster: 340/1000 worlds, 310 a minute and core, 1 failed, 6 min left",
    ]
    lines = terminal.getvalue().split("\r")
    assert len(lines) == 13
    assert lines[1].startswith("cluster: 120/1000 worlds")
    for one in shown:
        one.clear()
    assert terminal.getvalue().endswith(" \r")
    assert len(log.getvalue().splitlines()) == 2


def test_durations_are_rough() -> None:
    assert [progress.duration(s) for s in (3.4, 89.4, 90, 5399, 5400)] == ["3 s", "89 s", "2 min", "90 min", "1.5 h"]
