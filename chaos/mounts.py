"""File systems of their own: small tmpfs mounts, and ext4 in image files whose power can be cut.

Owns the commands and the call that cuts the power; who mounted what is its callers' business (`chaos.mount_register`).
Blocks, with named limits. Needs root and the commands mount and umount; ext4 also mkfs.ext4 and loop devices.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier, Thread

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: what the journal holds in memory is lost, as without power."""
COMMAND_TIMEOUT_S = 60.0
UMOUNT_TIMEOUT_S = 30.0
"""How long a file system may stay busy: a killed process that waits for its disk ends no sooner than that answers."""
POLL_S = 0.05
SOURCE = "penstock-chaos"
"""What a tmpfs of ours is called in the table of mounts."""
MIN_EXT4_BYTES = 8 * 1024 * 1024
_ESCAPED = re.compile(r"\\([0-7]{3})")
"""How blanks stand in the table of mounts."""


class MountError(Exception):
    """A file system could not be made, mounted or unmounted; the message says why."""


def make_image(image: Path, size_bytes: int) -> None:
    """Make an ext4 file system in a sparse file; root's share is nothing, so that full is full. Raises MountError."""
    with image.open("wb") as file:
        file.truncate(max(size_bytes, MIN_EXT4_BYTES))
    _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))


def mount_image(image: Path, at: Path) -> None:
    """Mount an image; a journal that was cut off is replayed. The loop device goes with the mount."""
    _run("mount", "-t", "ext4", "-o", "loop", str(image), str(at))


def mount_tmpfs(at: Path, size_bytes: int) -> None:
    """Mount an empty tmpfs. Raises MountError."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", SOURCE, str(at))


def unmount(at: Path, timeout_s: float = UMOUNT_TIMEOUT_S) -> None:
    """Unmount, waiting until nobody uses it any more. Nothing where nothing is mounted. Raises MountError."""
    deadline = time.monotonic() + timeout_s
    while is_mounted(at):
        try:
            _run("umount", str(at))
        except MountError as error:
            if time.monotonic() > deadline:
                raise MountError(f"{at} is still in use after {timeout_s:.0f} s: {error}") from error
            time.sleep(POLL_S)


def is_mounted(at: Path) -> bool:
    """Say whether a file system is mounted exactly there."""
    return str(at) in _mount_points()


def _mount_points() -> list[str]:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [_ESCAPED.sub(lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines]


def cut_power(mounted: Sequence[Path]) -> None:
    """End these ext4 file systems at one moment: nothing more reaches their disks, every use of them is an EIO.

    They stay mounted. Raises MountError where one cannot be cut; the others are.
    """
    roots = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in mounted]
    failures: list[str] = []
    start = Barrier(len(roots))

    def cut(root: int, path: Path) -> None:
        start.wait()
        try:
            fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            failures.append(f"{path}: {error.strerror}")

    threads = [Thread(target=cut, args=pair) for pair in zip(roots, mounted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for root in roots:
        os.close(root)
    if failures:
        raise MountError(f"no forced shutdown of {'; '.join(failures)}")


def unmount_lazily(at: Path) -> None:
    """Unmount at once; what is in use goes when its users do. Raises MountError."""
    _run("umount", "--lazy", str(at))


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise MountError(f"there is no command {command[0]}")
    try:
        subprocess.run(  # noqa: S603  a fixed command with paths of ours, no shell
            [program, *command[1:]], check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        raise MountError(f"{' '.join(command)}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{' '.join(command)}: {error}") from error
