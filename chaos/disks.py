"""The nodes' disks: each node's data on a file system of its own, and what may happen to it.

Owns the data directories and the mounts below them. Everything blocks, with named limits: call it in a thread, never
twice at once for one node. Never touches what it did not make.
"""

import os
import random
import shutil
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Self

from penstock.chaos.damage import Damage, Damaged, damage
from penstock.chaos.filling import FILLING, fill
from penstock.chaos.mount_register import MountRegister, sweep
from penstock.chaos.mounts import (
    UMOUNT_TIMEOUT_S,
    MountError,
    cut_power,
    make_image,
    mount_image,
    mount_tmpfs,
    unmount,
)
from penstock.chaos.shims.preload import NOTHING, Preload, Preloads

DEFAULT_BYTES = 1 << 30
"""Of a disk. Nodes keep an eighth of it free; an ext4 image is sparse and costs what is written to it."""
DATABASE = "data.mdb"
"""What nodes keep their data in (docs/operations.md)."""
TRIAL_BYTES = 16 * 1024 * 1024


class DiskKind(StrEnum):
    """What holds a node's data."""

    PLAIN = "plain"
    """A folder."""
    TMPFS = "tmpfs"
    """Memory: small, and lost when it is unmounted."""
    EXT4 = "ext4"
    """A file system in an image file, whose power can be cut."""


class DiskError(Exception):
    """What was asked of a disk cannot be done; the message says why."""


class Disks:
    """The disks of one cluster's nodes, below one folder that is this object's alone.

    with Disks(run / "disks", DiskKind.EXT4) as disks:
        disks.prepare([1, 2, 3])
        … NodePlan(…, data_dir=str(disks.data_dir(1)), wrapper=disks.wrapper(1))

    Methods raise DiskError and MountError.
    """

    def __init__(
        self,
        folder: Path,
        kind: DiskKind = DiskKind.PLAIN,
        size_bytes: int = DEFAULT_BYTES,
        preloads: Preloads = NOTHING,
    ) -> None:
        """`preloads`: what is loaded into nodes; without, their fsync cannot fail and their clocks are right."""
        self.kind = kind
        self.size_bytes = size_bytes
        self._folder = folder.absolute()
        self._preloads = preloads
        self._nodes: dict[int, Preload] = {}
        self._register: MountRegister | None = None
        self._dark: set[int] = set()  # nodes whose power is cut
        self._lost: set[int] = set()  # nodes whose data is lost or damaged; at most one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, node_ids: Collection[int]) -> None:
        """Make these nodes' disks; those that are there stay as they are.

        Before the first mount, what killed programs left mounted is unmounted.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for node_id in node_ids:
            if node_id not in self._nodes:
                self.root(node_id).mkdir()
                self._nodes[node_id] = self._preloads.make(self._preload_dir(node_id))
                self._make(node_id)

    def _make(self, node_id: int) -> None:
        if self.kind is DiskKind.PLAIN:
            return
        if self._register is None:
            sweep()
            self._register = MountRegister()
        self._register.add(self.root(node_id))
        if self.kind is DiskKind.TMPFS:
            mount_tmpfs(self.root(node_id), self.size_bytes)
            return
        make_image(self._image(node_id), self.size_bytes)
        mount_image(self._image(node_id), self.root(node_id))

    def _preload_dir(self, node_id: int) -> Path:
        return self._folder / f"preload-{node_id}"

    def _image(self, node_id: int) -> Path:
        return self._folder / f"node-{node_id}.ext4"

    def root(self, node_id: int) -> Path:
        """Where the node's file system begins."""
        return self._folder / f"node-{node_id}"

    def data_dir(self, node_id: int) -> Path:
        """Give the node's data directory. It need not exist; the folder above it does, once it is prepared."""
        return self.root(node_id) / "data"

    def wrapper(self, node_id: int) -> tuple[str, ...]:
        """Give what runs the node's server (NodePlan.wrapper); empty where nothing is loaded into it."""
        return self.preload(node_id).wrapper

    def preload(self, node_id: int) -> Preload:
        """Give what was loaded into the node: its failing fsync, its clock."""
        try:
            return self._nodes[node_id]
        except KeyError:
            raise DiskError(f"node {node_id} has no disk of this run") from None

    @property
    def preloads(self) -> Preloads:
        """What is loaded into nodes, and why some is not."""
        return self._preloads

    def missing_power_loss(self) -> str | None:
        """Say why the power of these disks cannot be cut."""
        return (
            None if self.kind is DiskKind.EXT4 else f"the power of {self.kind} disks cannot be cut, only of ext4 ones"
        )

    def missing_fill(self) -> str | None:
        """Say why these disks cannot be filled."""
        return "a plain folder shares its disk with others" if self.kind is DiskKind.PLAIN else None

    def power_loss(self, node_ids: Collection[int]) -> list[int]:
        """Cut the power of these nodes' disks at one moment; whose it was (not: those that are without already).

        Their processes live on, without a disk.
        """
        if reason := self.missing_power_loss():
            raise DiskError(reason)
        lit = [node_id for node_id in node_ids if node_id not in self._dark]
        self._dark.update(lit)
        cut_power([self.root(node_id) for node_id in lit])
        return lit

    def power_back(self, node_id: int, timeout_s: float = UMOUNT_TIMEOUT_S) -> None:
        """Mount the disk again as the power loss left it; nothing where it has power.

        The node's process must be gone: MountError where the disk is in use for so long.
        """
        if node_id in self._dark:
            unmount(self.root(node_id), timeout_s)
            mount_image(self._image(node_id), self.root(node_id))
            self._dark.discard(node_id)

    def is_dark(self, node_id: int) -> bool:
        """Say whether the disk's power is cut."""
        return node_id in self._dark

    def free_bytes(self, node_id: int) -> int:
        """What the node's file system has left."""
        stats = os.statvfs(self.root(node_id))
        return stats.f_bavail * stats.f_frsize

    def fill(self, node_id: int, leave_bytes: int = 0) -> int:
        """Fill the node's file system until no more than this (and less than a block) is left; what is left."""
        if reason := self.missing_fill():
            raise DiskError(reason)
        return fill(self.root(node_id), leave_bytes)

    def unfill(self, node_id: int) -> None:
        """Give the room back."""
        (self.root(node_id) / FILLING).unlink(missing_ok=True)

    def damage(self, node_id: int, how: Damage, rng: random.Random) -> Damaged:
        """Damage one of the node's databases. The node must not run."""
        files = sorted(self.data_dir(node_id).rglob(DATABASE))
        if not files:
            raise DiskError(f"node {node_id} has no database in {self.data_dir(node_id)}")
        try:
            done = damage(rng.choice(files), how, rng)
        except OSError as error:
            raise DiskError(f"the data of node {node_id} cannot be damaged: {error}") from error
        if done.count == 0:
            raise DiskError(f"nothing was ever written to {done.path}: there is nothing to damage")
        return done

    def lose(self, node_id: int) -> None:
        """Note that what the node has on its disk is lost. DiskError while another node's is: that would be two."""
        if others := self._lost - {node_id}:
            raise DiskError(f"the disk of node {min(others)} is lost already; without a second one data may be gone")
        self._lost.add(node_id)

    def regain(self, node_id: int) -> None:
        """Note that the node has a sound disk again."""
        self._lost.discard(node_id)

    def wipe(self, node_id: int) -> None:
        """Move the data away, as an operator does before `penstockd format --join`; what was away before goes."""
        away = self.root(node_id) / "away"
        if self.data_dir(node_id).exists():
            shutil.rmtree(away, ignore_errors=True)
            self.data_dir(node_id).rename(away)

    def close(self) -> None:
        """Unmount and remove all disks; the nodes must not run. What is still in use afterwards raises MountError."""
        failures: list[str] = []
        for node_id in list(self._nodes):
            try:
                self._remove(node_id)
            except MountError as error:
                failures.append(str(error))
        if failures:
            raise MountError("; ".join(failures))
        if self._register is not None:
            self._register.close()
            self._register = None

    def _remove(self, node_id: int) -> None:
        if self.kind is not DiskKind.PLAIN:
            unmount(self.root(node_id))
        shutil.rmtree(self.root(node_id))
        shutil.rmtree(self._preload_dir(node_id), ignore_errors=True)
        self._image(node_id).unlink(missing_ok=True)
        del self._nodes[node_id]


def missing(kind: DiskKind, folder: Path) -> str | None:
    """Say why there can be no disks of this kind below a folder; None where there can. It is tried, with a tiny one."""
    try:
        with Disks(folder / "trial", kind, TRIAL_BYTES) as trial:
            trial.prepare([0])
            if kind is DiskKind.EXT4:
                trial.power_loss([0])
                trial.power_back(0)
    except (MountError, OSError) as error:
        return f"{kind} disks cannot be had here: {error}"
    return None
