"""What the documents say of settings, commands and files is what there is."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from penstock.chaos.cli import app as chaos
from penstock.chaos.faults.registry import FAULTS
from penstock.client.cli import app
from penstock.client.cli.formats import DEFAULTS as CONSUMER_PROPERTIES
from penstock.client.cli.lines import DEFAULTS as PRODUCER_PROPERTIES
from penstock.node.config import Limits

ROOT = Path(__file__).parents[2]
CLI = (ROOT / "docs" / "cli.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
GUARANTEE = (ROOT / "docs" / "guarantee.md").read_text()
CHAOS = (ROOT / "docs" / "chaos.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_every_limit_is_documented_with_its_default() -> None:
    table = OPERATIONS.partition("<!-- limits")[2].partition("<!-- end of limits -->")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", table, re.MULTILINE))
    assert documented == {field.name: str(field.default) for field in fields(Limits)}


def test_every_command_is_documented() -> None:
    root = typer.main.get_command(app)
    names = []
    for noun, command in root.commands.items():  # type: ignore[attr-defined]  # a group's
        names += [f"penstock {noun} {verb}" for verb in getattr(command, "commands", {})] or [f"penstock {noun}"]
    missing = [name for name in names if f"`{name}" not in CLI]
    assert not missing


def test_every_command_is_documented_once() -> None:
    rows = re.findall(r"^\| `penstock ([\w-]+(?: [\w-]+)?)", CLI.partition("## Options everywhere")[0], re.MULTILINE)
    assert sorted(set(rows)) == sorted(rows)


def test_what_happens_is_told_once() -> None:
    """A merge may leave both sides."""
    cases = re.findall(r"^\*\*(.+?)\*\*", OPERATIONS, re.MULTILINE)
    assert sorted(set(cases)) == sorted(cases)


def test_every_property_is_documented() -> None:
    assert not [name for name in PRODUCER_PROPERTIES | CONSUMER_PROPERTIES if f"`{name}`" not in CLI]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert not [target for target in targets if not (document.parent / target).exists()]


def test_the_faults_that_the_guarantee_names_exist() -> None:
    groups = re.findall(r"chaos \(([^)]*)\)", GUARANTEE)
    named = [name for group in groups for name in re.findall(r"`([\w-]+)`", group)]
    assert len(named) > 20
    assert not [name for name in named if name not in FAULTS]


def test_every_command_of_the_chaos_suite_is_documented() -> None:
    root = typer.main.get_command(chaos)
    assert not [name for name in root.commands if f"penstock-chaos {name}" not in CHAOS]  # type: ignore[attr-defined]
    options = {flag for command in root.commands.values() for p in command.params for flag in p.opts}  # type: ignore[attr-defined]
    assert not [flag for flag in options if flag.startswith("--") and flag not in CHAOS]


def test_the_architectures_files_exist() -> None:
    text = ARCHITECTURE.partition("## Where to look")[2]
    paths = [path for path in re.findall(r"`([\w./]+)`", text) if "/" in path]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_table_of_rules_names_code_tests_and_mutants_that_exist() -> None:
    rows = re.findall(r"^\| \d+ \|[^|]*\|([^|]*)\|([^|]*)\|$", ARCHITECTURE.partition("## The rules")[2], re.MULTILINE)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    mutants = tests + (ROOT / "tests" / "replication" / "mutants.py").read_text()
    missing = []
    for code, proofs in rows:
        for part in code.split(";"):
            path, *names = re.findall(r"`([^`]+)`", part)
            text = (ROOT / path).read_text()
            parts = [piece for name in names for piece in name.split(".")]
            missing += [f"{path}: {piece}" for piece in parts if not re.search(rf"(def|class) {piece}\b", text)]
        missing += [name for name in re.findall(r"`(\w+)`", proofs) if f"def {name}(" not in tests]
        missing += [name for name in re.findall(r'"([^"]+)"', proofs) if f'"{name}"' not in mutants]
    assert len(rows) == 29
    assert not missing
