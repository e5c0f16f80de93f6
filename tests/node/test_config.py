"""The configuration file: what a good one gives, and the precise error for each way to get it wrong."""

from pathlib import Path

import pytest

from penstock.node.config import ConfigError, Endpoint, load

GOOD = """
node_id = 2
data_dir = "data"
rack = "r1"

[listen]
client = "127.0.0.1:9092"
peer = "127.0.0.1:9093"

[advertise]
client = "broker-2.example:19092"

[voters]
1 = "127.0.0.1:9083"
2 = "127.0.0.1:9093"
3 = "127.0.0.1:9103"

[peer_override]
3 = "127.0.0.1:7003"

[limits]
session_timeout_ms = 2000
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD))
    assert config.node_id == 2
    assert config.data_dir == tmp_path / "data"
    assert config.client_advertise == Endpoint("broker-2.example", 19092)
    assert config.peer_advertise == config.peer_listen == Endpoint("127.0.0.1", 9093)
    assert config.voters[3] == Endpoint("127.0.0.1", 9103)
    assert config.peer_override == {3: Endpoint("127.0.0.1", 7003)}
    assert config.limits.session_timeout_ms == 2000
    assert config.limits.heartbeat_interval_ms == 300
    assert config.durability == "commit"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("node_id = 2", "node_id = [", "is not valid TOML"),
        ("node_id = 2", "", "node_id: is required and missing"),
        ("node_id = 2", "node_id = true", "node_id: wants a whole number, not True"),
        ("node_id = 2", "node_id = 0", "node_id: must be 1 or more"),
        ("node_id = 2", 'node_id = "2"', "node_id: wants a whole number, not '2'"),
        ('rack = "r1"', 'rak = "r1"', "rak: no such setting; did you mean rack?"),
        ('rack = "r1"', 'durability = "none"', "durability: is 'none', not one of commit, interval, os"),
        ('peer = "127.0.0.1:9093"', "", "listen.peer: is required and missing"),
        ('peer = "127.0.0.1:9093"', 'peer = "127.0.0.1"', "listen.peer: '127.0.0.1' is not host:port"),
        ('peer = "127.0.0.1:9093"', 'peer = "127.0.0.1:70000"', "is not in 1..65535"),
        ('peer = "127.0.0.1:9093"', 'peer = "::1:9093"', "an IPv6 host stands in brackets"),
        ('peer = "127.0.0.1:9093"', 'peer = "127.0.0.1:9092"', "is the same address as listen.client"),
        ('peer = "127.0.0.1:9093"', 'peer = "10.0.0.1:9093"', "reachable from other machines"),
        ('"broker-2.example:19092"', '"0.0.0.0:9092"', "no address that others can dial"),
        ('1 = "127.0.0.1:9083"', "", "voters: must name 1, 3 or 5 nodes, not 2"),
        ('1 = "127.0.0.1:9083"', 'one = "127.0.0.1:9083"', "voters.one: wants a node id"),
        ("session_timeout_ms = 2000", "session_timeout_ms = 500", "at least 3 times heartbeat_interval_ms"),
        ("session_timeout_ms = 2000", "session_timout_ms = 5", "did you mean limits.session_timeout_ms?"),
        ("session_timeout_ms = 2000", "tail_cache_bytes = -1", "limits.tail_cache_bytes: must be above 0"),
        ("session_timeout_ms = 2000", "offsets_topic_partitions = 10001", "must be at most 10000"),
        ("session_timeout_ms = 2000", "group_session_timeout_max_ms = 999", "below group_session_timeout_min_ms"),
    ],
)
def test_a_bad_file_names_file_key_and_problem(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_listening_beyond_loopback_must_be_asked_for_by_name(tmp_path: Path) -> None:
    text = GOOD.replace("127.0.0.1:9093", "10.0.0.1:9093") + "\n[security]\nallow_insecure_listen = true\n"
    assert load(write(tmp_path, text)).peer_listen.host == "10.0.0.1"


def test_ipv6_endpoints_round_trip() -> None:
    assert str(Endpoint.parse("[::1]:9092")) == "[::1]:9092"
    assert Endpoint.parse("[::1]:9092").is_loopback
