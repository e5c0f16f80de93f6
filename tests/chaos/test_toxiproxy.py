"""The real Toxiproxy server: found, started, asked, and gone when it should be."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toxiproxy.api

from penstock.chaos import toxiproxy as module
from penstock.chaos.toxics import Stream, Toxic, latency
from penstock.chaos.toxiproxy import ToxiproxyMissingError, ToxiproxyServer, find_binary
from penstock.chaos.toxiproxy_api import Api, ToxiproxyError, ToxiproxyStuckError
from penstock.client.ports import free_ports, port_in_use
from tests.chaos.proxied import PATIENCE_S, binary, started

ROOT = Path(__file__).parents[2]
STARTER = """
import sys
from pathlib import Path
from penstock.chaos.toxiproxy import ToxiproxyServer
server = ToxiproxyServer.start(Path(sys.argv[1]))
print(server.api.port, server._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxiproxyServer]:
    yield from started(tmp_path_factory.mktemp("toxiproxy"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W", "-", request.node.name)


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_makefile_installs_the_version_that_was_tried() -> None:
    assert f"TOXIPROXY_VERSION := {module.VERSION}\n" in (ROOT / "Makefile").read_text()


def test_without_a_binary_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ToxiproxyMissingError) as caught:
        find_binary()
    assert f"go install github.com/Shopify/toxiproxy/v2/cmd/server@v{module.VERSION}" in str(caught.value)
    assert "https://github.com/Shopify/toxiproxy/releases" in str(caught.value)


def test_a_binary_beside_this_python_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "bin").mkdir()
    placed = tmp_path / "bin" / module.BINARY
    placed.write_text("#!/bin/sh\n")
    placed.chmod(0o755)
    assert find_binary() == placed


def test_a_server_answers_until_it_is_closed(tmp_path: Path) -> None:
    binary()
    server = ToxiproxyServer.start(tmp_path / "log")
    try:
        assert server.api.version()
        assert server.is_ours
        assert server.is_alive()
    finally:
        server.close()
    assert not server.is_alive()
    assert not port_in_use(server.api.port)
    with pytest.raises(ToxiproxyError, match="cannot be asked"):
        server.api.version()
    server.close()


def test_a_binary_that_does_not_serve_is_told_with_its_words(tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\necho no such luck\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(ToxiproxyError, match="did not start: no such luck"):
        ToxiproxyServer.start(tmp_path / "log", fake)


def test_a_port_that_somebody_else_took_is_given_up_for_another(
    tmp_path: Path, upstream: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary()
    taken = upstream.getsockname()[1]
    ports = iter([[taken], free_ports(1)])
    monkeypatch.setattr(module, "free_ports", lambda count: next(ports))
    server = ToxiproxyServer.start(tmp_path / "log")
    try:
        assert server.api.port != taken
    finally:
        server.close()


@pytest.mark.parametrize(
    ("victim", "number"), [("runner", signal.SIGKILL), ("guard", signal.SIGKILL), ("guard", signal.SIGTERM)]
)
def test_a_server_dies_with_the_run_even_when_that_is_killed(
    tmp_path: Path, victim: str, number: signal.Signals
) -> None:
    if (victim, number) == ("guard", signal.SIGKILL) and sys.platform != "linux":
        pytest.skip("prctl(PR_SET_PDEATHSIG) is Linux'")
    binary()
    command = [sys.executable, "-c", STARTER, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as runner:
        try:
            assert runner.stdout is not None
            port, guard = map(int, runner.stdout.readline().split())
            assert port_in_use(port)
            os.kill(runner.pid if victim == "runner" else guard, number)
            until(lambda: not port_in_use(port))
        finally:
            runner.kill()


def test_two_servers_at_once_are_apart(server: ToxiproxyServer, tmp_path: Path, name: str, listen: str) -> None:
    other = ToxiproxyServer.start(tmp_path / "log")
    try:
        server.create(name, "127.0.0.1:1", listen)
        assert name in server.api.names()
        assert name not in other.api.names()
    finally:
        other.close()
    assert name in server.api.names()


def test_the_library_of_others_is_left_as_it_is(server: ToxiproxyServer) -> None:
    assert server.api.port != toxiproxy.api.APIConsumer.port == 8474


def test_a_running_server_is_joined_and_left_running(server: ToxiproxyServer) -> None:
    joined = ToxiproxyServer.connect("127.0.0.1", server.api.port)
    assert not joined.is_ours
    joined.close()
    assert server.api.version()


def test_where_no_server_runs_none_is_joined() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ToxiproxyError, match="cannot be asked"):
        ToxiproxyServer.connect("127.0.0.1", port)


def test_an_internal_error_is_an_error(server: ToxiproxyServer, name: str, upstream: socket.socket) -> None:
    with pytest.raises(ToxiproxyError, match=r"500 .*address already in use"):
        server.create(name, "127.0.0.1:1", address_of(upstream))


def test_a_name_that_is_taken_is_refused(server: ToxiproxyServer, name: str, listen: str) -> None:
    server.create(name, "127.0.0.1:1", listen)
    with pytest.raises(ToxiproxyError, match="proxy already exists"):
        server.create(name, "127.0.0.1:1", f"127.0.0.1:{free_ports(1)[0]}")


def test_an_unknown_proxy_is_not_adopted(server: ToxiproxyServer) -> None:
    with pytest.raises(ToxiproxyError, match=r"404.*proxy not found"):
        server.adopt("nobody")


def test_silence_ends_by_a_time_out(upstream: socket.socket) -> None:
    with pytest.raises(ToxiproxyStuckError, match=r"did not answer get .*/version within 0\.1 s"):
        Api("127.0.0.1", upstream.getsockname()[1], timeout_s=0.1).version()


def test_a_toxic_is_changed_in_place(server: ToxiproxyServer, name: str, listen: str, upstream: socket.socket) -> None:
    proxy = server.create(name, address_of(upstream), listen)
    proxy.want(latency(10), enabled=True)
    proxy.settle()
    host, _, port = listen.rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        accepted, _ = upstream.accept()
        with accepted:
            proxy.want(latency(20, 5, toxicity=0.5), enabled=True)
            proxy.settle()
            shown = server.api.get(f"/proxies/{name}")["toxics"]
            assert [(toxic["attributes"], toxic["toxicity"]) for toxic in shown] == [
                ({"latency": 20, "jitter": 5}, 0.5)
            ] * 2
            client.sendall(b"still open")
            assert accepted.recv(100) == b"still open"


def test_what_is_there_is_compared_with_what_was_asked(server: ToxiproxyServer, name: str, listen: str) -> None:
    """Toxiproxy takes attributes that it does not know, and does nothing about them."""
    proxy = server.create(name, "127.0.0.1:1", listen)
    proxy.want([Toxic("latency", Stream.UPSTREAM, {"latncy": 100})], enabled=True)
    with pytest.raises(ToxiproxyError, match="is not as asked"):
        proxy.settle()


def test_a_proxy_of_others_is_never_removed(server: ToxiproxyServer, name: str, listen: str) -> None:
    server.create(name, "127.0.0.1:1", listen)
    with pytest.raises(ToxiproxyError, match="not ours"):
        server.adopt(name).destroy()
    assert name in server.api.names()


@pytest.mark.parametrize("ours", [True, False])
def test_a_proxy_that_waits_for_a_peer_is_made_again_if_it_is_ours(
    tmp_path: Path, name: str, listen: str, upstream: socket.socket, *, ours: bool
) -> None:
    """A peer that stands still takes no bytes; Toxiproxy then waits with a change of toxics, for ever."""
    binary()
    owner = ToxiproxyServer.start(tmp_path / "log")
    try:
        impatient = ToxiproxyServer(Api(owner.api.host, owner.api.port, timeout_s=1.0))
        created = impatient.create(name, address_of(upstream), listen)
        proxy = created if ours else impatient.adopt(name)
        host, _, port = listen.rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.settimeout(1.0)
            with pytest.raises(TimeoutError):
                client.sendall(bytes(1 << 28))
            proxy.want(latency(10), enabled=True)
            if ours:
                proxy.settle()
                assert len(owner.api.get(f"/proxies/{name}")["toxics"]) == 2
            else:
                with pytest.raises(ToxiproxyStuckError):
                    proxy.settle()
    finally:
        owner.close()
