"""`make test-pythons`: run the tests on each Python from 3.11 on that is found on the PATH or in pyenv.

Makes a virtual environment for each, .venv-3.x, installs the tests' dependencies, runs the tests, and prints a table.
Arguments are handed to pytest. Runs on any Python 3 and needs nothing installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
MINORS = range(11, 20)
REQUIRED = (11, 12, 13)
"""Supported minors; the others are tried where they are found."""


def version_of(python: Path) -> tuple[int, int, str] | None:
    """Give (3, minor) and the real path of an interpreter, or None where it does not run."""
    code = "import sys; print(*sys.version_info[:2], sys.executable)"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:  # a pyenv shim whose version is not switched on
        return None
    major, minor, executable = done.stdout.strip().split(" ", 2)
    return int(major), int(minor), executable


def candidates() -> Iterator[Path]:
    """Give interpreters that may be there: on the PATH, then pyenv's, the newest of each minor first."""
    for minor in MINORS:
        found = shutil.which(f"python3.{minor}")
        if found:
            yield Path(found)
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    versions = [path for path in pyenv.glob("versions/3.*") if re.fullmatch(r"3\.\d+\.\d+", path.name)]
    for path in sorted(versions, key=lambda path: [int(part) for part in path.name.split(".")], reverse=True):
        yield path / "bin" / "python"


def interpreters() -> dict[int, str]:
    """Give one interpreter for each minor from 3.11 on."""
    found: dict[int, str] = {}
    for python in candidates():
        version = version_of(python)
        if version is not None and version[0] == 3 and version[1] in MINORS:
            found.setdefault(version[1], version[2])
    return dict(sorted(found.items()))


def run_tests(minor: int, python: str, pytest_arguments: Sequence[str]) -> tuple[str, str]:
    """Run the tests on one interpreter; "ok" or "FAILED", and pytest's closing line."""
    venv = ROOT / f".venv-3.{minor}"
    own = venv / "bin" / "python"
    stamp = venv / ".installed"
    pyproject = ROOT / "pyproject.toml"
    print(f"\n== Python 3.{minor}: {python}", flush=True)
    if not stamp.exists() or stamp.stat().st_mtime < pyproject.stat().st_mtime:
        subprocess.run([python, "-m", "venv", "--clear", str(venv)], check=True)
        install = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[test]"]
        if subprocess.run(install, cwd=ROOT, check=False).returncode != 0:
            return "FAILED", "its dependencies could not be installed"
        stamp.touch()
    command = [str(own), "-u", "-m", "pytest", *pytest_arguments]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return ("ok" if tests.returncode == 0 else "FAILED"), last.strip("= ")


def main() -> int:
    """Run everything; the exit code is 1 if any Python failed, or none was found."""
    found = interpreters()
    results = {minor: run_tests(minor, python, sys.argv[1:]) for minor, python in found.items()}
    print("\nPython  result  pytest")
    for minor in sorted({*REQUIRED, *results}):
        result, line = results.get(minor, ("-", "not found on this machine"))
        print(f"3.{minor:<5} {result:<7} {line}")
    return 0 if results and all(result == "ok" for result, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
