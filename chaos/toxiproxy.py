"""A Toxiproxy server (the real one, in Go) and its proxies: started or found, changed, and read back.

Owns the server's process where it started it: it dies with this program, however that ends. Everything here blocks.
Invariant: after `Proxy.settle` the proxy is as asked, or ToxiproxyError says that it is not. Proxies and toxics of
others are left as they are.
"""

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from penstock.chaos import guard
from penstock.chaos.toxics import OURS, Toxic
from penstock.chaos.toxiproxy_api import Api, ToxiproxyError, ToxiproxyStuckError
from penstock.client.ports import free_ports

VERSION = "2.12.0"
"""Tried with this one. The Makefile installs it."""
BINARY = "toxiproxy-server"
START_PATIENCE_S = 60.0
START_ATTEMPTS = 3
"""Somebody else may take the port that was found free."""
END_PATIENCE_S = 10.0
_ANSWER_S = 1.0
"""How long one question at the start may take: somebody else may listen there, and be silent."""
_POLL_S = 0.05
_NOT_STARTED = "Server finished with error"
"""What Toxiproxy logs, and goes on, when its port is taken."""


class ToxiproxyMissingError(ToxiproxyError):
    """There is no server to start; the message says how to get one."""


def find_binary() -> Path:
    """Find the server on PATH or beside this Python. Raises ToxiproxyMissingError."""
    found = shutil.which(BINARY) or shutil.which(BINARY, path=str(Path(sys.prefix) / "bin"))
    if found is None:
        raise ToxiproxyMissingError(
            f"no {BINARY} on PATH or in {Path(sys.prefix) / 'bin'}. With a Go toolchain `make chaos` installs it, or:"
            f" go install github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}, and rename the binary `server` to"
            f" {BINARY}. Without one: a release's binary from"
            f" https://github.com/Shopify/toxiproxy/releases/tag/v{VERSION}, under that name on PATH"
        )
    return Path(found)


class ToxiproxyServer:
    """One server. `start` one or `connect` to one; several at a time do not disturb each other."""

    def __init__(self, api: Api, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self.api = api
        self._process = process

    @classmethod
    def start(cls, log: Path, binary: Path | None = None) -> Self:
        """Start a server on a free port of loopback, its output appended to `log`; returns when it answers."""
        command = str(binary or find_binary())
        for _ in range(START_ATTEMPTS):
            (port,) = free_ports(1)
            logged = log.stat().st_size if log.exists() else 0
            process = _spawn([command, "-host", "127.0.0.1", "-port", str(port), "-proxy-metrics"], log)
            server = cls(Api("127.0.0.1", port), process)
            try:
                if server._answers(log, logged):
                    return server
            except BaseException:
                server.close()
                raise
            server.close()
        raise ToxiproxyError(f"{command} did not get a port in {START_ATTEMPTS} attempts; its log is {log}")

    @classmethod
    def connect(cls, host: str, port: int) -> Self:
        """Use a server that runs. Raises ToxiproxyError where none answers."""
        server = cls(Api(host, port))
        server.api.version()
        return server

    @property
    def is_ours(self) -> bool:
        """We started it."""
        return self._process is not None

    def is_alive(self) -> bool:
        """Say whether it still runs, as far as we can tell."""
        return self._process is None or self._process.poll() is None

    def create(self, name: str, upstream: str, listen: str) -> "Proxy":
        """Make a proxy and own it. Raises ToxiproxyError, also where one of that name exists."""
        self.api.create(name, upstream, listen)
        return Proxy(self.api, name, is_ours=True)

    def adopt(self, name: str) -> "Proxy":
        """Use a proxy that somebody else made. Raises ToxiproxyError where there is none."""
        return Proxy(self.api, name, is_ours=False)

    def close(self) -> None:
        """End the server, if we started it. Idempotent."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the server dies with its guard
            self._process.wait()

    def _answers(self, log: Path, logged: int) -> bool:
        """Wait for the first answer; False where the port went to somebody else."""
        deadline = time.monotonic() + START_PATIENCE_S
        while self.is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(ToxiproxyError):
                self.api.version(_ANSWER_S)
                return _NOT_STARTED not in _logged(log, logged)
            if _NOT_STARTED in _logged(log, logged):
                return False
            time.sleep(_POLL_S)
        raise ToxiproxyError(f"{BINARY} did not start: {_logged(log, logged)[-500:] or 'it says nothing'}; see {log}")


class Proxy:
    """One proxy of a server. Safe to use from several threads: changes follow each other."""

    def __init__(self, api: Api, name: str, *, is_ours: bool) -> None:
        self._api = api
        self.name = name
        self.is_ours = is_ours
        self._remote = api.proxy(name)
        self.listen: str = self._remote.listen
        self.upstream: str = self._remote.upstream
        self._lock = threading.Lock()
        self._wanted: tuple[bool, tuple[Toxic, ...]] = (True, ())

    def want(self, toxics: Iterable[Toxic], *, enabled: bool) -> None:
        """Say what `settle` is to bring about."""
        self._wanted = (enabled, tuple(toxics))

    def settle(self) -> None:
        """Bring about what is wanted by now. A proxy of ours that is stuck is made again; its connections end."""
        with self._lock:
            enabled, toxics = self._wanted
            try:
                self._change(toxics, enabled=enabled)
            except ToxiproxyStuckError:
                if not self.is_ours:
                    raise
                self._make_again()
                self._change(toxics, enabled=enabled)

    def destroy(self) -> None:
        """Remove it. Raises ToxiproxyError; never for others' proxies."""
        if not self.is_ours:
            raise ToxiproxyError(f"proxy {self.name} is not ours to remove")
        self._remote.destroy()

    def _change(self, toxics: Sequence[Toxic], *, enabled: bool) -> None:
        shown = self._api.get(f"/proxies/{self.name}")
        present = [toxic for toxic in shown["toxics"] if toxic["name"].startswith(OURS)]
        wanted = {toxic.name: toxic for toxic in toxics}
        obsolete = [toxic for toxic in present if toxic["name"] not in wanted]
        # Connections that a removed `timeout` would close are closed at once and together.
        if shown["enabled"] and (not enabled or any(toxic["type"] == "timeout" for toxic in obsolete)):
            self._remote.disable()
        for toxic in reversed(obsolete):  # the last first: one in the middle waits for those behind it
            self._remote.destroy_toxic(toxic["name"])
        self._put(wanted, {toxic["name"]: toxic for toxic in present})
        if enabled:
            self._remote.enable()
        self._read_back(wanted, enabled=enabled)

    def _put(self, wanted: dict[str, Toxic], present: dict[str, Any]) -> None:
        for name, toxic in wanted.items():
            fields = {"attributes": dict(toxic.attributes), "toxicity": toxic.toxicity}
            if name not in present:
                self._remote.add_toxic(name=name, type=toxic.kind, stream=str(toxic.stream), **fields)
            elif not toxic.is_shown_by(present[name]):
                self._api.update_toxic(self.name, name, fields)

    def _read_back(self, wanted: dict[str, Toxic], *, enabled: bool) -> None:
        shown = self._api.get(f"/proxies/{self.name}")
        present = {toxic["name"]: toxic for toxic in shown["toxics"] if toxic["name"].startswith(OURS)}
        right = present.keys() == wanted.keys() and all(wanted[name].is_shown_by(present[name]) for name in present)
        if shown["enabled"] is not enabled or not right:
            asked = f"enabled={enabled} with {sorted(wanted.values(), key=str)}"
            raise ToxiproxyError(f"proxy {self.name} is not as asked: {asked}, but {shown}")

    def _make_again(self) -> None:
        self._remote.destroy()
        self._api.create(self.name, self.upstream, self.listen, enabled=False)


def _spawn(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start the command below a guard that holds our end of a pipe: when we are gone, the guard ends it."""
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603  our own command line, no shell
            [sys.executable, "-I", "-S", str(guard.__file__), *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _logged(log: Path, since: int) -> str:
    with log.open("rb") as file:
        file.seek(since)
        return file.read().decode(errors="replace")
