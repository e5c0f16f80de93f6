"""Building the shims where they are needed: by the machine's own C compiler, into a folder of the run."""

import shutil
import subprocess
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
TIMEOUT_S = 60.0


class ShimError(Exception):
    """A shim cannot be had here; the message says why."""


def compile_shim(source: Path, folder: Path) -> Path:
    """Compile a shim; the library. Raises ShimError where there is no compiler or it fails."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise ShimError(f"there is no C compiler ({', '.join(COMPILERS)}) to build {source.name} with")
    target = folder / f"{source.stem}.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(target), str(source), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603  ours
    except subprocess.CalledProcessError as error:
        raise ShimError(f"{compiler} cannot build {source.name}: {error.stderr.strip()[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShimError(f"{compiler} cannot build {source.name}: {error}") from error
    return target
