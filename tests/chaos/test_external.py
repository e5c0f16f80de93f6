"""The cluster file: what it may say, precise errors for everything else, and its commands really run."""

import asyncio
from pathlib import Path

import pytest

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.external import ExternalCluster, ExternalLink, load
from tests.cluster.reading import until

GOOD = """
toxiproxy = "127.0.0.1:8474"
command_timeout_s = 30

[[nodes]]
id = 2
client = "10.0.0.2:9092"
voter = false

[[nodes]]
id = 1
client = "10.0.0.1:9092"
peer = "10.0.0.1:9093"
log = "node-1.log"
kill = "touch killed; echo gone"
running = "test -e running"
stop = "echo no such unit >&2; exit 5"

[[links]]
source = "app"
target = 1
proxy = "app-1"

[[links]]
source = 1
target = 2
proxy = "one-two"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    file = load(write(tmp_path, GOOD))
    cluster = ExternalCluster(file)
    assert (cluster.node_ids, cluster.voters) == ((1, 2), (1,))
    assert (cluster.peer_address(1), cluster.peer_address(2)) == ("10.0.0.1:9093", None)
    assert (cluster.log_path(1), cluster.log_path(2)) == (tmp_path / "node-1.log", None)
    assert file.hosts == ("app",)
    assert file.links == (ExternalLink("app", 1, "app-1"), ExternalLink(1, 2, "one-two"))
    assert cluster.missing(Action.PAUSE) == "the cluster file has no command `pause` for node 2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("peer =", "per =", r"nodes\.per: no such setting; known here: client, id"),
        ("id = 2", 'id = "2"', r"nodes\.id: wants int, not '2'"),
        ("id = 2", "id = 1", r"nodes: wants one table or more, each with an id of its own"),
        ("target = 2", "target = 7", r"links: there is no node 7"),
        ('toxiproxy = "127.0.0.1:8474"', "", r"toxiproxy: is missing"),
        ('client = "10.0.0.2:9092"', "", r"nodes\.client: is required and missing"),
        ("command_timeout_s = 30", "command_timeout_s = 0", r"command_timeout_s: must be above 0"),
        ("voter = false", "voter = 0", r"nodes\.voter: wants bool, not 0"),
        ("[[links]]", "[[links]", r"is not valid TOML"),
    ],
)
def test_what_it_must_not_say(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ClusterError, match=message):
        load(write(tmp_path, GOOD.replace(old, new, 1)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


async def test_commands_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cluster = ExternalCluster(load(write(tmp_path, GOOD)))
    await cluster.do(Action.KILL, 1)
    assert (tmp_path / "killed").exists()
    assert not await cluster.is_running(1)
    (tmp_path / "running").touch()
    assert await cluster.is_running(1)
    with pytest.raises(ClusterError, match="ended with exit code 5: no such unit"):
        await cluster.do(Action.STOP, 1)
    with pytest.raises(ClusterError, match="no command `start` for node 2"):
        await cluster.do(Action.START, 2)


async def test_a_command_may_leave_a_daemon_behind_and_may_not_hang(tmp_path: Path) -> None:
    daemon = f"sleep 600 & echo $! > {tmp_path}/pid"
    hanging = f"echo $$ > {tmp_path}/hanging; sleep 600"
    text = f"""
command_timeout_s = 5.0
[[nodes]]
id = 1
client = "127.0.0.1:1"
start = "{daemon}"
stop = "{hanging}"
kill = "kill -9 $(cat {tmp_path}/pid)"
"""
    cluster = ExternalCluster(load(write(tmp_path, text)))
    await cluster.do(Action.START, 1)
    await cluster.do(Action.KILL, 1)
    with pytest.raises(ClusterError, match="did not end within 5 s and was killed"):
        await cluster.do(Action.STOP, 1)
    gone = int((tmp_path / "hanging").read_text())

    async def ended() -> bool:
        command = await asyncio.to_thread(lambda: Path(f"/proc/{gone}/cmdline"))
        return not await asyncio.to_thread(lambda: command.exists() and command.read_bytes())

    await until(ended)
