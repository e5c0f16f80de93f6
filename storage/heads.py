"""LMDB's heads: the two meta pages that say, in turn, where everything is as of a commit. They have no checksum.

A head whose number changes can pass for the older or the newer one: LMDB then opens the commit before the last one,
whose pages are all intact. So the two must be of one commit and the next; and the lock file notes the number of the
last commit, after it, so that a data file of an earlier one can be told.
"""

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from penstock.storage.layout import damaged

# LMDB 0.9's meta page, in the machine's own sizes and order: page number, padding, flags, bounds; magic, version, map
# address and size; of the free list and of the list of databases: padding (the first: page size), flags, depth, branch,
# leaf and overflow pages, entries, root; last page, number of the commit.
_HEAD = struct.Struct("@NHHI IIPN IHHNNNNN IHHNNNNN NN")
_MAGIC, _VERSION, _PAGE_BYTES, _LAST_PAGE, _COMMIT = 4, 5, 8, -2, -1
_LMDB = (0xBEEFC0DE, 1)
_PAGE_SIZES = frozenset(1 << bits for bits in range(9, 17))
_NUMBER, _CRC = struct.Struct(">Q"), struct.Struct(">I")


class Head(NamedTuple):
    """What a meta page says. Commits with even numbers write the first one."""

    page_bytes: int
    last_page: int
    commit: int

    @property
    def needed_bytes(self) -> int:
        """How long the file must be."""
        return (self.last_page + 1) * self.page_bytes


def read_head(file: Path) -> Head:
    """The newer head. Raises DamagedStoreError where the two do not fit each other, or are not there."""
    with file.open("rb") as data:
        first = _read(file, data.read(_HEAD.size))
        data.seek(first.page_bytes)
        second = _read(file, data.read(_HEAD.size))
    if first.page_bytes != second.page_bytes or first.commit % 2 or abs(first.commit - second.commit) != 1:
        raise damaged(f"the two heads of {file} do not fit each other")
    return max(first, second, key=lambda head: head.commit)


def _read(file: Path, data: bytes) -> Head:
    if len(data) < _HEAD.size:
        raise damaged(f"{file} was cut short: not even its head is whole")
    fields = _HEAD.unpack(data)
    if (fields[_MAGIC], fields[_VERSION]) != _LMDB or fields[_PAGE_BYTES] not in _PAGE_SIZES:
        raise damaged(f"{file} does not begin as an LMDB file")
    return Head(fields[_PAGE_BYTES], fields[_LAST_PAGE], fields[_COMMIT])


def renumber(file: Path, after: int) -> int:
    """Give a compact copy's heads the numbers of commits that come after another one; the number of the newer.

    LMDB begins such a copy anew, with commit 1 in the second head over an empty environment in the first. Nothing else
    in it knows the numbers, for its list of free pages is empty. Both heads say the same then, of one commit and the
    next. Not synced.
    """
    with file.open("r+b") as data:
        first = _read(file, data.read(_HEAD.size))
        data.seek(first.page_bytes)
        packed = data.read(_HEAD.size)
        if _read(file, packed).commit != 1:
            raise damaged(f"{file} is no new copy")
        fields = _HEAD.unpack(packed)
        newer = after + 1 + after % 2  # odd: that of the second head
        for page, number in ((0, newer - 1), (1, newer)):
            data.seek(page * first.page_bytes)
            data.write(_HEAD.pack(page, *fields[1:-1], number))
    return newer


def note_commit(handle: int, number: int) -> None:
    """Note in the lock file that a commit is durable.

    The note is not synced: it outlives the process, and where it does not outlive a loss of power, a check is weaker.
    """
    packed = _NUMBER.pack(number)
    with contextlib.suppress(OSError):  # a full disk, the first time: as good as none
        os.pwrite(handle, packed + _CRC.pack(zlib.crc32(packed)), 0)


def check_noted(file: Path, handle: int, opened: int) -> None:
    """Raise DamagedStoreError where the data file is of an earlier commit than was noted; no note says nothing."""
    mark = os.pread(handle, _NUMBER.size + _CRC.size, 0)
    packed, crc = mark[: _NUMBER.size], mark[_NUMBER.size :]
    if crc == _CRC.pack(zlib.crc32(packed)) and _NUMBER.unpack(packed)[0] > opened:
        raise damaged(f"{file} is of commit {opened}, and there was a commit {_NUMBER.unpack(packed)[0]}")
