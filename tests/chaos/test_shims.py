"""The failing disk: a real process, loaded with the compiled shim, whose syncs are steered while it runs."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.chaos.shims import preload
from penstock.chaos.shims.compiling import ShimError, compile_shim
from penstock.chaos.shims.faulty_disk import SOURCE, FaultyDisk, SyncCounts
from penstock.chaos.shims.preload import Preload, Preloads

CHILD = """
import lmdb, os, sys
plain = os.open("plain", os.O_RDWR | os.O_CREAT)
synchronous = os.open("synchronous", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
database = lmdb.open("database")
def commit():
    with database.begin(write=True) as transaction:
        transaction.put(os.urandom(8), b"value")
work = {
    "fsync": lambda: os.fsync(plain),
    "fdatasync": lambda: os.fdatasync(plain),
    "pwrite": lambda: os.pwrite(plain, b"x", 0),
    "synchronous pwrite": lambda: os.pwrite(synchronous, b"x", 0),
    "commit": commit,
}
for line in sys.stdin:
    try:
        work[line.strip()]()
        print("done", flush=True)
    except (OSError, lmdb.Error) as error:
        print(error, flush=True)
"""
Do = Callable[[str], str]


@pytest.fixture
def loaded(tmp_path: Path) -> Preload:
    found = preload.find(tmp_path / "shims")
    if found.missing_disk:
        pytest.skip(found.missing_disk)
    return Preloads(disk_library=found.disk_library).make(tmp_path / "preload")


@pytest.fixture
def disk(loaded: Preload) -> FaultyDisk:
    assert loaded.disk is not None
    return loaded.disk


@pytest.fixture
def do(loaded: Preload, tmp_path: Path) -> Iterator[Do]:
    command = [*loaded.wrapper, sys.executable, "-c", CHILD]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True) as child:

        def one(what: str) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(what + "\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        yield one


SYNCS = ("fsync", "fdatasync", "synchronous pwrite")


@pytest.mark.parametrize("sync", SYNCS)
def test_syncs_fail_as_long_as_they_should(do: Do, disk: FaultyDisk, sync: str) -> None:
    assert do(sync) == "done"
    disk.fail()
    assert ["Input/output error" in do(sync) for _ in range(3)] == [True] * 3
    disk.heal()
    assert do(sync) == "done"
    assert disk.counts().failed == 3


def test_so_many_fail_after_so_many_that_succeed(do: Do, disk: FaultyDisk) -> None:
    disk.fail(2, after=3)
    assert [do("fsync") == "done" for _ in range(6)] == [True, True, True, False, False, True]
    assert disk.counts().failed == 2


def test_slow_syncs_are_counted_and_succeed(do: Do, disk: FaultyDisk) -> None:
    disk.delay(5)
    assert [do(sync) for sync in SYNCS] == ["done"] * 3
    assert disk.counts().delayed == 3
    disk.heal()
    assert do("fsync") == "done"
    assert disk.counts().delayed == 3


def test_what_is_no_sync_never_fails(do: Do, disk: FaultyDisk) -> None:
    disk.fail()
    assert do("pwrite") == "done"
    assert disk.counts() == SyncCounts(0, 0, 0)


@pytest.mark.parametrize("after", [0, 1])
def test_a_commit_of_lmdb_fails_at_its_data_and_at_its_meta_page(do: Do, disk: FaultyDisk, after: int) -> None:
    assert do("commit") == "done"
    disk.fail(1, after)
    assert "Input/output error" in do("commit")
    assert disk.counts().failed == 1


def test_a_process_without_the_control_is_not_changed(loaded: Preload, tmp_path: Path) -> None:
    without = [part for part in loaded.wrapper if not part.startswith("PENSTOCK_")]
    code = "import os; os.fsync(os.open('file', os.O_RDWR | os.O_CREAT))"
    subprocess.run([*without, sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="no Linux, or no C compiler")
def test_where_there_is_a_compiler_nothing_is_missing(tmp_path: Path) -> None:
    found = preload.find(tmp_path / "shims")
    assert (found.missing_disk, found.missing_clock) == (None, None)  # else a broken shim would skip its own tests


def test_without_a_compiler_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ShimError, match="no C compiler"):
        compile_shim(SOURCE, tmp_path)
    found = preload.find(tmp_path / "shims")
    assert found.disk_library is None
    assert "no C compiler" in str(found.missing_disk)
    assert found.make(tmp_path / "preload").wrapper == ()


def test_a_source_that_does_not_compile_is_told_with_the_compilers_words(tmp_path: Path) -> None:
    if preload.find(tmp_path / "shims").missing_disk:
        pytest.skip("nothing compiles here")
    (tmp_path / "wrong.c").write_text("#error nonsense")
    with pytest.raises(ShimError, match=r"(?s)cannot build wrong\.c: .*nonsense"):
        compile_shim(tmp_path / "wrong.c", tmp_path)


def test_a_folder_that_ld_preload_cannot_name_is_refused(tmp_path: Path) -> None:
    found = preload.find(tmp_path / "with blank")
    assert "blanks and colons" in str(found.missing_disk)
    assert "blanks and colons" in str(found.missing_clock)
