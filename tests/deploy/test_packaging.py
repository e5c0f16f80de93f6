"""Wheel and sdist hold everything, although the packages are symbolic links in the checkout."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKS = {link.name: link.resolve() for link in (ROOT / "penstock").iterdir() if link.is_symlink()}
SHIPPED = (".py", ".pyi", ".proto", "py.typed", ".html", ".c")


def build(tree: Path, kind: str, out: Path) -> Path:
    """Run the build backend in a source tree, as pip would."""
    call = f"import setuptools.build_meta as backend; backend.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", call], cwd=tree, check=True, capture_output=True, timeout=280)
    (made,) = out.iterdir()
    return made


def sources() -> Iterator[str]:
    """Everything below penstock/ that a wheel must hold, by its path in it."""
    yield from ("penstock/__init__.py", "penstock/py.typed")
    for name, folder in LINKS.items():
        for path in folder.rglob("*"):
            if path.name.endswith(SHIPPED) and "__pycache__" not in path.parts:
                yield f"penstock/{name}/{path.relative_to(folder)}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build needs, links kept, without what earlier builds left."""
    copy = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("penstock", *{folder.relative_to(ROOT).parts[0] for folder in LINKS.values()}):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_package_and_nothing_else(wheel: Path) -> None:
    held = contents(wheel)
    assert not set(sources()) - held
    assert not [name for name in held if not name.startswith("penstock/") and ".dist-info/" not in name]
    assert {"penstock/v1/record_pb2.py", "penstock/v1/record.proto", "penstock/py.typed"} <= held


def test_the_wheel_declares_its_programs_and_its_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        programs = archive.read(name).decode()
    assert "penstock = penstock.client.cli:main" in programs
    assert "penstockd = penstock.node.main:main" in programs
    assert "penstock-chaos = penstock.chaos.__main__:main" in programs
    assert any(name.endswith("licenses/LICENSE") for name in contents(wheel))


def test_a_wheel_built_from_the_sdist_is_the_same(tree: Path, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    with tarfile.open(build(tree, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert contents(build(source, "wheel", tmp_path / "wheel")) == contents(wheel)


def test_the_base_install_alone_runs_the_command_line(wheel: Path, tmp_path: Path) -> None:
    """The client and the CLI import nothing of the server's extras."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    refused = "pysyncobj lmdb uvloop prometheus_client grpc_health grpc_reflection toxiproxy pytest hypothesis"
    code = (
        "import sys\n"
        f"for name in {refused.split()!r}: sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import penstock, penstock.client.blocking\n"
        f"assert penstock.__file__.startswith({str(tmp_path)!r}), penstock.__file__\n"
        "from penstock.client.cli import run\n"
        "sys.exit(run(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Usage: penstock" in done.stdout


def test_without_its_dependencies_the_chaos_suite_says_what_to_install() -> None:
    code = "import sys; sys.modules['toxiproxy'] = None; from penstock.chaos.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("are not installed (toxiproxy): pip install 'penstock[node,chaos]'")
