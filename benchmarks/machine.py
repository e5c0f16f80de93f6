"""What a run was made on and with, for its report. Everything that cannot be found out is empty or None."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.disks import check_disk, sync_latency

PACKAGES = ("penstock", "grpcio", "protobuf", "lmdb", "uvloop", "confluent-kafka", "nats-py")
_ROOT = Path(__file__).resolve().parents[1]


def describe(folder: Path) -> dict[str, Any]:
    """Describe the machine, the software, and the disk below `folder`, whose fsync is measured. JSON."""
    kind, syncs = check_disk(folder), sync_latency(folder)
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "commit": commit(),
        "disk": {
            "filesystem": kind,
            "fsync_4k_ms": {f"p{p}": syncs.percentile(p) for p in (50, 99)} | {"max": syncs.max_us / 1000},
        },
    }


def commit() -> str | None:
    """Give the git commit of this checkout, with a + where files differ from it; None where there is none."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or sys.platform)
