"""The JetStream peer without its programs: configuration, what is said where one is missing, the client's answer."""

import json
from pathlib import Path

import pytest

from benchmarks.peers import jetstream, jetstream_servers, jetstream_tools
from benchmarks.peers.jetstream_servers import Server, Servers
from benchmarks.registry import driver, system
from benchmarks.system import UnavailableError
from benchmarks.workloads import Workload
from penstock.client.bench.histogram import Histogram

SERVER = Server("n1", Path("/data") / "n1", client_port=1, cluster_port=2, http_port=3)
WORKLOAD = Workload("series", "series", 1, 3, "all", 100, records=4)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_both_names_are_known_and_differ_in_syncing_alone() -> None:
    assert [system(name).name for name in ("jetstream", "jetstream-synced")] == ["jetstream", "jetstream-synced"]
    assert isinstance(driver("jetstream-synced"), jetstream.JetStreamDriver)
    plain = SERVER.config(["nats://127.0.0.1:2"], sync_always=False)
    synced = SERVER.config(["nats://127.0.0.1:2"], sync_always=True)
    assert "sync_interval" not in plain
    assert synced.replace("  sync_interval: always\n", "") == plain


def test_a_configuration_names_its_places_and_the_other_servers() -> None:
    text = SERVER.config(["nats://127.0.0.1:2", "nats://127.0.0.1:5"], sync_always=False)
    assert 'listen: "127.0.0.1:1"' in text
    assert 'http: "127.0.0.1:3"' in text
    assert 'store_dir: "/data/n1"' in text
    assert 'routes: ["nats://127.0.0.1:2", "nats://127.0.0.1:5"]' in text


def test_servers_are_configured_below_their_folder(tmp_path: Path) -> None:
    servers = Servers(sync_always=True)
    servers.configure(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.conf")) == ["n1.conf", "n2.conf", "n3.conf"]
    assert len(set(servers.bootstrap.split(","))) == 3
    assert all("sync_interval: always" in path.read_text() for path in tmp_path.glob("*.conf"))


def test_a_start_that_fails_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_servers, "SERVER", program(tmp_path / "server", "echo no disk; exit 3"))
    servers = Servers(sync_always=False)
    servers.configure(tmp_path / "data")
    with pytest.raises(RuntimeError, match="ended with code 3"):
        servers.start()
    assert servers.pids() == {}
    servers.stop()


def test_without_go_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"Go, which is missing: install Go"):
        system("jetstream").prepare()


def test_a_build_that_fails_is_told_with_what_go_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "go", "echo no such module >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jetstream_tools, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(jetstream_tools, "SERVER", tmp_path / "cache" / "nats-server")
    with pytest.raises(UnavailableError, match=r"the NATS server was not built; .*GOPROXY.*no such module"):
        system("jetstream").prepare()


def test_a_client_that_is_not_built_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jetstream, "CLIENT", tmp_path / "client")
    with pytest.raises(UnavailableError, match="prepare"):
        driver("jetstream").drive("nats://127.0.0.1:1", WORKLOAD)


def test_exact_microseconds_of_the_client_become_buckets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [(100, 1), (1000, 2), (1001, 1)]
    answer = {"records": 4, "bytes": 400, "seconds": 2.0, "latency": rows, "client_cpu_s": 0.5}
    script = f"read workload; echo '{json.dumps(answer)}'"
    monkeypatch.setattr(jetstream, "CLIENT", program(tmp_path / "client", script))
    load = driver("jetstream").drive("nats://127.0.0.1:1", WORKLOAD)
    assert (load.records, load.bytes, load.seconds, load.client_cpu_s) == (4, 400, 2.0, 0.5)
    assert load.latency == Histogram(rows).to_json()


def test_what_the_client_says_of_its_failure_is_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jetstream, "CLIENT", program(tmp_path / "client", "echo no responders >&2; exit 1"))
    with pytest.raises(jetstream.ClientError, match="no responders"):
        driver("jetstream").fill("nats://127.0.0.1:1", WORKLOAD)
    with pytest.raises(UnavailableError, match="1 streams were not made: no responders"):
        system("jetstream").create(WORKLOAD)
