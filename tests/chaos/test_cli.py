"""`penstock-chaos` as people meet it: wrong usage, a run and what it leaves, an interrupt, somebody else's cluster."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.chaos.links import Link, Links
from penstock.chaos.scenario import SCENARIOS
from penstock.chaos.toxiproxy import ToxiproxyMissingError, ToxiproxyServer, find_binary
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

PATIENCE_S = 240


@pytest.fixture
def proxies() -> None:
    try:
        find_binary()
    except ToxiproxyMissingError as error:
        pytest.skip(str(error))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock.chaos", *arguments]


def chaos(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def nodes_below(folder: Path) -> list[str]:
    """Command lines of processes that have a file of this folder in them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(path.parent.name) != os.getpid():
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--scenario", "none"), "there is no scenario 'none'; there are control, combined"),
        (("run", "--seed", "1", "--seeds", "1:3"), "say either --seed N or --seeds A:B"),
        (("run", "--seeds", "3:1"), "say either --seed N or --seeds A:B"),
        (("run", "--faults", "kill-leader,nothing"), "has no faults nothing"),
        (("run", "--schedule", "absent.json"), "absent.json cannot be read"),
        (("check", "."), "is no run's folder"),
        (("report", "."), "is no run's folder"),
        (("run", "--duration", "0"), "Invalid value for '--duration'"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = chaos(*arguments, cwd=tmp_path)
    told = " ".join(line.strip("│ ") for line in done.stderr.splitlines())
    assert (done.returncode, message in told) == (2, True), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    done = chaos("run", "--cluster", "absent.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        3,
        "penstock-chaos: absent.toml: cannot be read: No such file or directory",
    )


def test_list_names_every_scenario_and_why_a_fault_cannot_be_done(tmp_path: Path, proxies: None) -> None:
    listed = json.loads(chaos("list", "--format", "json", cwd=tmp_path).stdout)
    assert {found["name"] for found in listed["scenarios"]} == set(SCENARIOS)
    faults = {found["name"]: found["missing"] for found in listed["faults"]}
    assert faults["kill-leader"] is None
    assert faults["rebalance-storm"] is None
    (tmp_path / "theirs.toml").write_text('[[nodes]]\nid = 1\nclient = "127.0.0.1:9"\nvoter = true\n')
    text = chaos("list", "--cluster", "theirs.toml", cwd=tmp_path).stdout
    assert "rebalance-storm" in text
    assert "not here: no proxies" in text


@pytest.mark.timeout(600)
def test_a_run_and_what_it_leaves(tmp_path: Path, proxies: None) -> None:
    """Run, told as done the second time; checked again; reported again; its schedule performed again."""
    run = ("run", "--scenario", "quick-kills", "--faults", "kill-leader", "--duration", "8", "--results", "done.jsonl")
    first = chaos(*run, "--seed", "5", "--junit", "junit.xml", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.startswith("VALID: scenario quick-kills, seed 5")
    folder = tmp_path / "chaos-runs" / "quick-kills-5"
    assert {path.name for path in folder.iterdir()} >= {
        "history.jsonl",
        "run.json",
        "verdict.json",
        "report.html",
        "logs",
    }
    assert not (folder / "cluster").exists()
    assert ET.parse(tmp_path / "junit.xml").getroot().get("tests") == "1"
    again = chaos(*run, "--seed", "5", cwd=tmp_path)
    assert "done before, valid" in again.stderr
    (folder / "report.html").unlink()
    assert chaos("report", str(folder), cwd=tmp_path).stdout.strip() == str(folder / "report.html")
    checked = chaos("check", str(folder), cwd=tmp_path)
    assert (checked.returncode, checked.stdout.splitlines()[0]) == (0, first.stdout.splitlines()[0])
    schedule = ("--schedule", str(folder / "run.json"), "--out", "other")
    replayed = chaos(*run[:-2], "--seed", "6", *schedule, cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    schedules = [
        json.loads((at / "run.json").read_text())["schedule"] for at in (folder, tmp_path / "other/quick-kills-6")
    ]
    assert schedules[0] == schedules[1]
    assert not nodes_below(tmp_path)


def test_a_history_that_lost_a_record_is_invalid(tmp_path: Path, proxies: None) -> None:
    """Taken out of both final readings of a real run: exit code 1, and the record named."""
    run = chaos("run", "--scenario", "quick-control", "--duration", "2", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    folder = tmp_path / "chaos-runs" / "quick-control-1"
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    lost = next(line["reads"][0]["records"][0][2] for line in lines if line.get("final") and line["reads"])
    for line in lines:
        for read in line.get("reads", ()):
            read["records"] = [record for record in read["records"] if record[2] != lost]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checked = chaos("check", str(folder), cwd=tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.startswith("INVALID")
    assert str(lost) in checked.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_that_was_begun(tmp_path: Path, proxies: None, number: signal.Signals) -> None:
    arguments = ("run", "--scenario", "processes", "--faults", "pause-leader")
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "acknowledged" in line:
                break
        assert nodes_below(tmp_path)
        process.send_signal(number)
        _, rest = process.communicate(timeout=PATIENCE_S)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    assert (process.returncode, "broken off" in rest) == (130, True)
    assert not nodes_below(tmp_path)


class Foreign:
    """Somebody else's cluster: three nodes, a Toxiproxy with links between two of them and for clients, commands."""

    def __init__(self, folder: Path) -> None:
        self.cluster = DevCluster.create(folder / "theirs", make_plan(free_ports(6)))
        self.server = ToxiproxyServer.start(folder / "toxiproxy.log")
        plan = self.cluster.plan
        upstreams = {Link(1, 2): plan.nodes[1].peer} | {Link("app", node.node_id): node.client for node in plan.nodes}
        self.links = Links.create(self.server, upstreams)
        self.file = folder / "cluster.toml"
        self.file.write_text(self.text())

    def text(self) -> str:
        control = f"{sys.executable} {Path(__file__).with_name('control_node.py')} {self.cluster.home}"
        lines = [f'toxiproxy = "{self.server.api.host}:{self.server.api.port}"']
        for node in self.cluster.plan.nodes:
            lines += ["[[nodes]]", f"id = {node.node_id}", f'client = "{node.client}"', f'peer = "{node.peer}"']
            lines += [f'{name} = "{control} {name} {node.node_id}"' for name in ("kill", "start", "running")]
        for link in self.links.all:
            source = link.source if isinstance(link.source, int) else f'"{link.source}"'
            lines += ["[[links]]", f"source = {source}", f"target = {link.target}", f'proxy = "{link}"']
        return "\n".join(lines) + "\n"


@pytest.fixture
def foreign(tmp_path: Path, proxies: None) -> Iterator[Foreign]:
    found = Foreign(tmp_path)
    try:
        found.cluster.start()
        found.cluster.wait_serving()
        yield found
    finally:
        for node_id in found.cluster.node_ids:
            found.cluster.kill(node_id)
        found.server.close()


@pytest.mark.timeout(600)
def test_somebody_elses_cluster(tmp_path: Path, foreign: Foreign) -> None:
    """Killed by its file's commands, cut at its own proxies; left running, enabled, and without our toxics."""
    pids = [foreign.cluster.process(node_id) for node_id in foreign.cluster.node_ids]
    listed = chaos("list", "--format", "json", "--cluster", str(foreign.file), cwd=tmp_path)
    missing = {fault["name"]: fault["missing"] for fault in json.loads(listed.stdout)["faults"]}
    assert missing["kill-leader"] is None
    assert missing["pause-leader"] == "the cluster file has no command `pause` for node 1"
    assert missing["cut-client"] is None
    assert missing["power-loss-all"] is not None
    for scenario, fault in (
        ("quick-kills", "kill-leader"),
        ("quick-cuts", "cut-client"),
        ("quick-pauses", "pause-leader"),
    ):
        faults = ("--scenario", scenario, "--faults", fault, "--duration", "9", "--out", fault)
        done = chaos("run", *faults, "--cluster", str(foreign.file), cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        verdict = json.loads((tmp_path / fault / f"{scenario}-1" / "verdict.json").read_text())
        (told,) = verdict["measures"]["faults"]
        assert told["status"] == ("skipped" if fault == "pause-leader" else "healed"), told
    assert [foreign.cluster.process(node_id) for node_id in foreign.cluster.node_ids] != pids
    assert all(foreign.cluster.is_running(node_id) for node_id in foreign.cluster.node_ids)
    for link in foreign.links.all:
        shown = foreign.server.api.get(f"/proxies/{link}")
        assert (shown["enabled"], shown["toxics"]) == (True, [])
