"""The Kafka peer without brokers: the files it makes, what it says is missing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers import kafka
from benchmarks.peers.kafka import config, jars, settings
from benchmarks.peers.kafka.brokers import KafkaSystem
from benchmarks.system import UnavailableError
from benchmarks.workloads import ACKS_LEADER, Workload

PORTS = [1001, 1002, 1003, 2001, 2002, 2003]


def workload(**changes: object) -> Workload:
    fields: dict[str, object] = {
        "name": "w", "kind": "throughput", "partitions": 7, "replication": 3, "acks": "all", "record_bytes": 100
    }  # fmt: skip
    return Workload.from_json({**fields, **changes})


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_each_broker_knows_all_controllers_and_has_its_own_ports_and_folder(tmp_path: Path) -> None:
    nodes = config.make_nodes(tmp_path, PORTS)
    properties = config.broker_properties(nodes[1], nodes, synced=False)
    assert properties["node.id"] == "2"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:2001,2@127.0.0.1:2002,3@127.0.0.1:2003"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1002,CONTROLLER://127.0.0.1:2002"
    assert properties["log.dirs"] == str(tmp_path / "kafka-2" / "data")
    assert properties["min.insync.replicas"] == "2"
    assert len({node.folder for node in nodes}) == len(nodes) == 3


def test_only_the_synced_mode_flushes_each_append(tmp_path: Path) -> None:
    nodes = config.make_nodes(tmp_path, PORTS)
    plain, synced = (config.broker_properties(nodes[0], nodes, synced=synced) for synced in (False, True))
    assert synced.pop("log.flush.interval.messages") == "1"
    assert plain == synced


def test_properties_are_lines_of_key_and_value() -> None:
    assert config.properties_text({"a": "1", "b.c": "x=y"}) == "a=1\nb.c=x=y\n"


def test_leaders_go_round_the_brokers_and_replicas_are_different_brokers() -> None:
    assignment = config.replica_assignment(workload(), brokers=3)
    assert [replicas[0] for replicas in assignment] == [1, 2, 3, 1, 2, 3, 1]
    assert all(sorted(replicas) == [1, 2, 3] for replicas in assignment)
    assert config.replica_assignment(workload(partitions=2, replication=1), brokers=3) == [[1], [2]]


def test_a_topic_of_one_replica_can_be_written_and_one_of_large_batches_takes_them() -> None:
    assert config.topic_config(workload(replication=1))["min.insync.replicas"] == "1"
    assert config.topic_config(workload())["min.insync.replicas"] == "2"
    assert config.topic_config(workload())["max.message.bytes"] == str(config.DEFAULT_MAX_MESSAGE_BYTES)
    large = workload(batch_bytes=2**21)
    assert int(config.topic_config(large)["max.message.bytes"]) > 2**21
    assert int(settings.producer_settings("b", large)["message.max.bytes"]) > 2**21


def test_the_producer_is_idempotent_where_librdkafka_can_be() -> None:
    everyone = settings.producer_settings("b", workload(linger_ms=0.5))
    assert (everyone["acks"], everyone["enable.idempotence"], everyone["linger.ms"]) == ("all", True, 0.5)
    leader = settings.producer_settings("b", workload(acks=ACKS_LEADER))
    assert (leader["acks"], leader["enable.idempotence"]) == ("1", False)


def test_batches_are_as_large_as_librdkafka_likes_where_their_size_is_not_what_is_measured() -> None:
    own = settings.producer_settings("b", workload(batch_bytes=65_536))
    fixed = settings.producer_settings("b", workload(batch_bytes=65_536, fixed_batches=True))
    assert (own["batch.size"], fixed["batch.size"]) == (settings.DEFAULT_BATCH_BYTES, 65_536)


def test_the_command_line_has_the_heap_and_the_collector_of_kafkas_scripts() -> None:
    command = config.java_command("java", Path("/jars"), Path("/log4j2"), config.MAIN, ["x"])
    assert command[0] == "java"
    assert {"-Xmx1G", "-Xms1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"} <= set(command)
    assert command[-4:] == ["-cp", "/jars/*", "kafka.Kafka", "x"]


@pytest.mark.parametrize(
    ("said", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nmore', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("no java here", 0),
    ],
)
def test_the_version_of_java_is_read(said: str, major: int) -> None:
    assert jars.java_major(said) == major


def test_without_java_the_reason_and_the_remedy_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UnavailableError, match=r"there is no java command; install Java 17"):
        jars.java()


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "java", "echo 'openjdk version \"11.0.2\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"needs Java 17, and .*/java is of version 11; install"):
        jars.java()


def test_without_maven_the_jars_in_the_cache_still_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"no mvn command to fetch them; install Maven"):
        jars.fetch(tmp_path / "cache")
    folder = tmp_path / "cache" / f"kafka-{jars.kafka_version()}"
    folder.mkdir(parents=True)
    assert jars.fetch(tmp_path / "cache") == folder


def test_a_download_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "mvn", "echo unknown host; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"failed:\nunknown host"):
        jars.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_the_client_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UnavailableError, match="pip install confluent-kafka"):
        kafka.system("kafka").prepare()


def test_a_start_that_fails_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three formatters the second fails; the third would run on."""
    (tmp_path / "bin").mkdir()
    fake = (
        'case "$*" in *-version*) echo \'openjdk version "17.0.1"\';; *kafka-2/*) echo no room; exit 3;; *kafka-3/*) '
    )
    script(tmp_path / "bin" / "java", fake + "exec sleep 1000;; esac")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(jars, "require_client", lambda: None)
    monkeypatch.setattr(jars, "fetch", lambda: tmp_path)
    servers = KafkaSystem("kafka", synced=False)
    spawned: list[int] = []
    whole = servers.stop

    def stop() -> None:
        spawned.extend(servers.pids().values())
        whole()

    monkeypatch.setattr(servers, "stop", stop)
    with pytest.raises(RuntimeError, match=r"(?s)kafka-2 was not formatted.*no room"):
        servers.start(tmp_path / "data")
    assert len(spawned) == 3
    assert servers.pids() == {}
    for pid in spawned:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    whole()  # a second time


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(PR_SET_PDEATHSIG) is Linux'")
def test_a_tethered_command_dies_with_the_program_that_started_it() -> None:
    """The program is killed, so that it has no time to clean up; the pipe ends when the command is gone."""
    tether = str(jars.HERE / "tethered.py")
    program = (
        "import os, subprocess, sys\n"
        f"tether = [sys.executable, '-I', {tether!r}, str(os.getpid())]\n"
        "subprocess.Popen([*tether, 'sh', '-c', 'echo up; exec sleep 1000'])\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        started.kill()
        assert started.stdout.read() == b""
