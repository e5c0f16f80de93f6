"""What programs have mounted, in files that outlive them, so that a later run cleans up after one that was killed.

A file belongs to the program that holds its lock, which ends with that program. Never unmounts what is not in a file,
nor anything of a program that lives.
"""

import fcntl
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from penstock.chaos.mounts import MountError, is_mounted, unmount_lazily

ENDING = ".mounts"


class MountRegister:
    """What this program has mounted."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the files of all programs are. Raises MountError where it is not this user's alone."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = _checked(folder) / (name + ENDING)
        unlocked = self._path.with_suffix(".new")
        self._file = unlocked.open("x")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        unlocked.rename(self._path)  # only now may others see it: unlocked it would pass for that of a dead program

    def add(self, at: Path) -> None:
        """Note a mount, before it is made."""
        self._note("+", at)

    def remove(self, at: Path) -> None:
        """Forget a mount that is gone."""
        self._note("-", at)

    def _note(self, sign: str, at: Path) -> None:
        self._file.write(f"{sign}{at}\n")
        self._file.flush()

    def close(self) -> None:
        """Forget everything: nothing is mounted any more."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def sweep(folder: Path | None = None) -> list[Path]:
    """Unmount what programs that have ended left behind; the mount points. What is still in use goes with its users."""
    swept: list[Path] = []
    for path in _checked(folder).glob("*" + ENDING):
        with suppress(FileNotFoundError, BlockingIOError), path.open() as file:  # gone: another program sweeps too
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for at in _left(file.read()):
                unmount_lazily(at)
                swept.append(at)
            path.unlink()
    return swept


def _left(notes: str) -> list[Path]:
    mounts: dict[str, None] = {}
    for note in notes.splitlines():
        if note.startswith("+"):
            mounts[note[1:]] = None
        else:
            mounts.pop(note[1:], None)
    return [Path(name) for name in mounts if is_mounted(Path(name))]


def _checked(folder: Path | None) -> Path:
    """Whoever else could write there could have us unmount what they name."""
    folder = folder or Path(tempfile.gettempdir()) / f"penstock-chaos-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise MountError(f"{folder} is not this user's alone; remove it")
    return folder
