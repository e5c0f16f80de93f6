"""What is read of processes and disks, and when servers are at rest."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.disks import NoDiskError, check_disk, filesystem, sync_latency
from benchmarks.machine import describe
from benchmarks.procfs import Usage, usage
from benchmarks.quiet import STEP_S, TIMEOUT_S, wait_quiet

MOUNTS = r"""21 1 8:1 / / rw - ext4 /dev/sda rw
22 21 0:5 / /mem rw shared:1 - tmpfs tmpfs rw
23 22 8:2 / /mem/a\040disk rw - xfs /dev/sdb rw
"""


def test_usage_is_what_the_system_tells(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0\n")
    (folder / "status").write_text("Name:\tx\nVmHWM:\t 40 kB\nVmRSS:\t 30 kB\nRssAnon:\t 20 kB\nRssFile:\t 10 kB\n")
    ticks = os.sysconf("SC_CLK_TCK")
    assert usage(7, tmp_path) == Usage(200 / ticks, 30 * 1024, 20 * 1024, 10 * 1024, 40 * 1024)
    with pytest.raises(ProcessLookupError):
        usage(8, tmp_path)


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    found = {place: filesystem(Path(place), table) for place in ("/home/x", "/mem/b", "/mem/a disk/b", "/memory")}
    assert found == {"/home/x": "ext4", "/mem/b": "tmpfs", "/mem/a disk/b": "xfs", "/memory": "ext4"}
    assert filesystem(Path("/"), tmp_path / "none") == ""


def test_memory_is_refused_as_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.disks.filesystem", lambda _: "tmpfs")
    with pytest.raises(NoDiskError, match="in memory"):
        check_disk(Path("/mem"))


def test_syncs_are_measured_and_leave_nothing(tmp_path: Path) -> None:
    assert sync_latency(tmp_path, 3).count == 3
    assert not list(tmp_path.iterdir())


def test_the_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.check_disk", lambda _: "ext4")
    found = describe(tmp_path)
    assert found["cores"] >= 1
    assert found["packages"]["grpcio"]
    assert found["disk"]["filesystem"] == "ext4"


class Servers:
    """Two of them, together using `shares` of a core in each step, the last for ever."""

    def __init__(self, *shares: float) -> None:
        self.shares = list(shares)
        self.now = 0.0
        self.used = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds * (self.shares.pop(0) if len(self.shares) > 1 else self.shares[0])

    def read(self, _: Mapping[str, int]) -> dict[str, Usage]:
        return {"a": Usage(self.used, 0, 0, 0, 0), "b": Usage(0.0, 0, 0, 0, 0)}


@pytest.mark.parametrize(
    ("shares", "quiet", "seconds"), [((1.5, 0.5, 0.05), True, 3 * STEP_S), ((0.2,), False, TIMEOUT_S)]
)
def test_servers_come_to_rest_or_are_not_waited_for(shares: tuple[float, ...], quiet: bool, seconds: float) -> None:
    servers = Servers(*shares)
    assert wait_quiet({"a": 1, "b": 2}, servers.read, lambda: servers.now, servers.sleep) is quiet
    assert servers.now == pytest.approx(seconds)
