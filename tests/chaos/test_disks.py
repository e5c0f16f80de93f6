"""Disks of nodes: what a loss of power takes and what it leaves, full ones, damaged ones, and that nothing stays."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.chaos.damage import PAGE_BYTES, Damage, damage
from penstock.chaos.disks import DiskError, DiskKind, Disks, missing
from penstock.chaos.mount_register import MountRegister, sweep
from penstock.chaos.mounts import MountError, is_mounted

BYTES = 32 << 20


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Disks]:
    if reason := missing(DiskKind.EXT4, tmp_path):
        pytest.skip(reason)
    with Disks(tmp_path / "disks", DiskKind.EXT4, BYTES) as disks:
        disks.prepare([1, 2, 3])
        yield disks


def test_a_loss_of_power_takes_what_was_not_synced_and_nothing_else(ext4: Disks) -> None:
    for node_id in (1, 2, 3):
        with (ext4.root(node_id) / "log").open("wb", buffering=0) as file:
            file.write(b"a" * 5000)
            os.fsync(file.fileno())
            file.write(b"b" * 5000)
        (ext4.root(node_id) / "new").write_text("never synced")
    assert ext4.power_loss([1, 2, 3]) == [1, 2, 3]
    for node_id in (1, 2, 3):
        with pytest.raises(OSError, match="Input/output error"):
            (ext4.root(node_id) / "more").touch()
        ext4.power_back(node_id)
        assert (ext4.root(node_id) / "log").read_bytes() == b"a" * 5000
        assert not (ext4.root(node_id) / "new").exists()


def test_power_is_lost_and_comes_back_once_and_for_those_named_alone(ext4: Disks) -> None:
    assert ext4.power_loss([1]) == [1]
    assert ext4.power_loss([1, 2]) == [2]
    assert [ext4.is_dark(node_id) for node_id in (1, 2, 3)] == [True, True, False]
    (ext4.root(3) / "file").write_text("node 3 goes on")
    with (ext4.root(3) / "file").open() as used:
        ext4.power_back(3, timeout_s=0.0)  # has power: is not unmounted
        assert used.read() == "node 3 goes on"
    for node_id in (1, 2):
        ext4.power_back(node_id)
    assert not any(ext4.is_dark(node_id) for node_id in (1, 2, 3))


def test_a_disk_in_use_does_not_get_its_power_back(ext4: Disks) -> None:
    with (ext4.root(1) / "file").open("w"):
        ext4.power_loss([1])
        with pytest.raises(MountError, match="node-1 is still in use after 0 s"):
            ext4.power_back(1, timeout_s=0.0)
    ext4.power_back(1)


@pytest.mark.parametrize("kind", [DiskKind.EXT4, DiskKind.TMPFS])
@pytest.mark.parametrize("leave", [0, 1 << 20])
def test_a_full_disk_has_no_block_more_and_room_comes_back(tmp_path: Path, kind: DiskKind, leave: int) -> None:
    if reason := missing(kind, tmp_path):
        pytest.skip(reason)
    with Disks(tmp_path / "disks", kind, BYTES) as disks:
        disks.prepare([1])
        free = disks.free_bytes(1)
        assert disks.fill(1, leave) == disks.free_bytes(1)
        assert leave - PAGE_BYTES <= disks.free_bytes(1) <= leave
        with pytest.raises(OSError, match="No space left"):
            (disks.root(1) / "more").write_bytes(bytes(leave + PAGE_BYTES))
        (disks.root(1) / "more").unlink()
        disks.unfill(1)
        assert abs(disks.free_bytes(1) - free) <= 8 * PAGE_BYTES


def test_a_plain_folder_is_nobodys_disk_to_fill_or_to_cut(tmp_path: Path) -> None:
    with Disks(tmp_path / "disks") as disks:
        disks.prepare([1])
        with pytest.raises(DiskError, match="shares its disk with others"):
            disks.fill(1)
        with pytest.raises(DiskError, match="only of ext4"):
            disks.power_loss([1])
        with pytest.raises(DiskError, match="node 2 has no disk"):
            disks.wrapper(2)
        assert disks.wrapper(1) == ()


def test_wiped_data_is_moved_away_once(tmp_path: Path) -> None:
    with Disks(tmp_path / "disks") as disks:
        disks.prepare([1])
        for content in ("first", "second"):
            disks.data_dir(1).mkdir()
            (disks.data_dir(1) / "file").write_text(content)
            disks.wipe(1)
            assert not disks.data_dir(1).exists()
        disks.wipe(1)  # nothing is there
        assert (disks.root(1) / "away" / "file").read_text() == "second"


def test_one_lost_disk_at_a_time(tmp_path: Path) -> None:
    disks = Disks(tmp_path / "disks")
    disks.lose(1)
    disks.lose(1)
    with pytest.raises(DiskError, match="node 1 is lost already"):
        disks.lose(2)
    disks.regain(1)
    disks.lose(2)


def test_nothing_is_left_and_what_is_not_ours_stays(ext4: Disks, tmp_path: Path) -> None:
    (tmp_path / "disks" / "not ours").touch()
    ext4.power_loss([2])
    ext4.close()
    assert [path.name for path in (tmp_path / "disks").iterdir()] == ["not ours"]
    assert not any(is_mounted(ext4.root(node_id)) for node_id in (1, 2, 3))


_KILLED = """
import os, sys
from pathlib import Path
from penstock.chaos.disks import DiskKind, Disks
disks = Disks(Path(sys.argv[1]), DiskKind.EXT4, 16 << 20)
disks.prepare([1, 2])
print("mounted", flush=True)
input()
"""


def test_what_a_killed_program_left_mounted_is_unmounted_by_the_next(ext4: Disks, tmp_path: Path) -> None:
    folder = tmp_path / "öf the killed"
    command = [sys.executable, "-c", _KILLED, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"mounted\n"
        sweep()
        assert is_mounted(folder / "node-1")  # it lives
        child.send_signal(signal.SIGKILL)
    sweep()
    assert not is_mounted(folder / "node-1")
    assert not is_mounted(folder / "node-2")
    assert is_mounted(ext4.root(1))


def test_a_register_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "register").mkdir()
    (tmp_path / "register").chmod(0o777)
    with pytest.raises(MountError, match="not this user's alone"):
        MountRegister(tmp_path / "register")
    (tmp_path / "link").symlink_to(tmp_path / "register")
    with pytest.raises(MountError, match="not this user's alone"):
        sweep(tmp_path / "link")


def test_a_register_names_what_is_mounted_and_nothing_else(tmp_path: Path) -> None:
    register = MountRegister(tmp_path / "register")
    register.add(tmp_path)  # noted, and never mounted
    assert sweep(tmp_path / "register") == []
    register.close()
    assert list((tmp_path / "register").iterdir()) == []


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "data.mdb"
    with path.open("wb") as file:
        file.write(b"".join(bytes([number]) * PAGE_BYTES for number in range(1, 31)))
        file.truncate(1 << 26)
    return path


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_are_where_something_was_written(sparse: Path, seed: int) -> None:
    before = sparse.read_bytes()
    done = damage(sparse, Damage.BIT_FLIPS, random.Random(seed))
    after = sparse.read_bytes()
    differ = [at for at in range(30 * PAGE_BYTES) if before[at] != after[at]]
    assert len(after) == len(before)
    assert after[30 * PAGE_BYTES :] == before[30 * PAGE_BYTES :]
    assert len({at // PAGE_BYTES for at in differ}) == len(differ) == done.count > 0
    assert all((before[at] ^ after[at]).bit_count() == 1 for at in differ)


def test_truncation_takes_some_of_what_was_written(sparse: Path) -> None:
    done = damage(sparse, Damage.TRUNCATION, random.Random(1))
    assert 0 < sparse.stat().st_size == 30 * PAGE_BYTES - done.count < 30 * PAGE_BYTES


def test_damage_is_drawn_from_the_seed(sparse: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.write_bytes(sparse.read_bytes())
    for path in (sparse, twin):
        damage(path, Damage.BIT_FLIPS, random.Random(7))
    assert sparse.read_bytes() == twin.read_bytes()


def test_where_there_is_nothing_to_damage_it_is_said(tmp_path: Path) -> None:
    with Disks(tmp_path / "disks") as disks:
        disks.prepare([1])
        disks.data_dir(1).mkdir()
        with pytest.raises(DiskError, match="no database"):
            disks.damage(1, Damage.BIT_FLIPS, random.Random(1))
        (disks.data_dir(1) / "data.mdb").write_bytes(bytes(8192))
        with pytest.raises(DiskError, match="nothing was ever written"):
            disks.damage(1, Damage.TRUNCATION, random.Random(1))
