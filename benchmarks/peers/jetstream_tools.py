"""The programs of the JetStream peer, built from Go modules into benchmarks/.cache/jetstream.

Versions are pinned here and in jetstream_client/go.mod. Go keeps the modules that it gets in its own cache; with them
there, nothing is downloaded.
"""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.system import UnavailableError

SERVER_VERSION = "v2.15.2"
GO_VERSION = "1.26"
"""The oldest that jetstream_client/go.mod takes."""

CACHE = Path(__file__).parents[1] / ".cache" / "jetstream"
SERVER = CACHE / "nats-server"
CLIENT = CACHE / "jetstream_client"
CLIENT_SOURCE = Path(__file__).parent / "jetstream_client"
BUILD_TIMEOUT_S = 600


def prepare() -> None:
    """Build what is not there in these versions. Raises UnavailableError with the reason and what to do."""
    go = shutil.which("go")
    if go is None:
        remedy = f"install Go {GO_VERSION} or newer (go.dev/dl) and put it on PATH"
        raise UnavailableError(f"JetStream's server and client are built with Go, which is missing: {remedy}")
    CACHE.mkdir(parents=True, exist_ok=True)
    if server_version() != SERVER_VERSION:
        package = f"github.com/nats-io/nats-server/v2@{SERVER_VERSION}"
        _run([go, "install", "-trimpath", package], CACHE, "the NATS server")
    # Go itself knows what has changed.
    _run([go, "build", "-trimpath", "-buildvcs=false", "-o", str(CLIENT), "."], CLIENT_SOURCE, "the JetStream client")


def server_version() -> str:
    """Give the built server's version, as 'v2.15.2'; '' where there is none."""
    if not SERVER.exists():
        return ""
    answer = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - built here
    return answer.stdout.strip().rpartition(" ")[2]


def _run(command: list[str], folder: Path, what: str) -> None:
    environment = {**os.environ, "GOBIN": str(CACHE), "GOWORK": "off", "GOFLAGS": ""}
    try:
        subprocess.run(  # noqa: S603 - Go, with arguments from here
            command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{what} was not built within {BUILD_TIMEOUT_S} s: is a Go proxy reached?") from error
    except subprocess.CalledProcessError as error:
        remedy = f"Go {GO_VERSION} or newer and a Go proxy (GOPROXY) are needed"
        raise UnavailableError(f"{what} was not built; {remedy}. Go said: {error.stderr.strip()}") from error
