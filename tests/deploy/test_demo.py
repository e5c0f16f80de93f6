"""The demo's own check finds what it looks for; and the whole demo, once, as `make demo` runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.ledger import Ledger
from penstock.client import Delivery, PenstockError, Record
from penstock.protocol.reasons import Reason

ROOT = Path(__file__).parents[2]


def record(number: int, offset: int, key: bytes = b"ada") -> Record:
    return Record("orders", 0, offset, 0, key, b"", [("number", str(number).encode())], 0)


@pytest.fixture
def ledger() -> Ledger:
    told = Ledger()
    for number in (0, 1):
        told.acknowledged(number, Delivery("orders", 0, number, 0))
    told.failed(2, PenstockError(Reason.OUTCOME_UNKNOWN, ""))
    told.failed(3, PenstockError(Reason.NOT_ENOUGH_REPLICAS, ""))
    return told


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([record(0, 0), record(1, 1)], None),
        ([record(0, 0), record(1, 1), record(2, 2)], None),  # of unknown outcome: may be there
        ([record(0, 0)], "order 1, acknowledged at (0, 1), was not read"),
        ([record(0, 0), record(1, 1), record(1, 2)], "order 1 was read 2 times"),
        ([record(0, 0), record(1, 1), record(2, 2), record(2, 3)], "order 2 was read 2 times"),
        ([record(0, 0), record(1, 5)], "order 1, acknowledged at (0, 1), was read at (0, 5)"),
        ([record(1, 1), record(0, 0)], "order 0 was read after order 1 of the same customer"),
        ([record(0, 0), record(1, 1), record(3, 2)], "order 3, refused, was read at (0, 2)"),
    ],
)
def test_the_ledger_finds_every_kind_of_fault(ledger: Ledger, records: list[Record], problem: str | None) -> None:
    problems = list(ledger.problems(records, "read"))
    assert problem in problems if problem else not problems


def running(home: Path) -> list[str]:
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(home) in line and "penstock.node" in line]


def test_the_demo_reads_back_what_was_acknowledged_and_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    closing = re.fullmatch(
        r"([\d,]+) of ([\d,]+) acknowledged records were read back: none missing.*", done.stdout.splitlines()[-1]
    )
    assert closing is not None
    assert closing[1] == closing[2]
    assert "was not served for" in done.stdout
    assert not running(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.demo"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "kill -9" in line:
                demo.send_signal(signal.SIGINT)
                demo.send_signal(signal.SIGTERM)
    assert demo.returncode == 130
    assert not running(tmp_path)
    assert not list(tmp_path.iterdir())
