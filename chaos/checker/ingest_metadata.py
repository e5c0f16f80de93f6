"""Reads topic changes, descriptions, nodes' views and faults into Facts."""

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.malformed import Malformed, moment, natural, text
from penstock.chaos.checker.metadata import Change, Description, Disagreement, PartitionKey, View, Window
from penstock.chaos.checker.writes import FAIL, INFO, OK
from penstock.chaos.history import Entry

_ENDS = {"ok": OK, "fail": FAIL, "info": INFO}


class MetadataReader:
    """Functions that change topics, `describe_topic`, `view`, `fault`, and `phase`, which says nothing here."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._metadata = facts.metadata
        self._under_way: dict[int, Change] = {}
        self._hashes: dict[int, tuple[object, View]] = {}
        """By version."""
        self._leaders: dict[tuple[str, int, int], tuple[int, View]] = {}
        """By topic id, partition and leader epoch."""
        self._views: dict[int, View] = {}
        """The last one by node; overlapping ones are left out."""
        self._epochs: dict[int, dict[PartitionKey, int]] = {}
        """By node, in its last view."""
        self._told: set[object] = set()
        """What was found once, and is shown by view after view."""
        changes = ("create_topic", "delete_topic", "add_partitions", "alter_topic")
        self.handlers = dict.fromkeys(changes, self.change) | {
            "describe_topic": self.describe_topic,
            "view": self.view,
            "fault": self.fault,
            "phase": lambda _entry: None,
        }

    def change(self, entry: Entry) -> None:
        """Take a line of a change."""
        function, kind, op = entry["f"], entry["type"], entry["op"]
        self._facts.counts[function][kind] += 1
        if kind == "invoke":
            if op in self._under_way:
                raise Malformed(f"op {op} is invoked twice")
            process = self._facts.processes.number(entry["process"])
            change = Change(function, text(entry, "topic"), op, process, entry["time"])
            change.config = entry.get("config", change.config)
            if not isinstance(change.config, dict):
                raise Malformed(f"config is {change.config!r}, not an object")
            if function in ("create_topic", "add_partitions"):
                change.partitions = natural(entry, "partitions")
            self._under_way[op] = change
            self._metadata.changes.append(change)
            return
        ended = self._under_way.pop(op, None)
        if ended is None or ended.f != function:
            raise Malformed(f"op {op} is not a {function} under way")
        ended.outcome, ended.completed = _ENDS[kind], entry["time"]
        if kind == "ok" and function == "create_topic":
            ended.topic_id = text(entry, "topic_id")

    def describe_topic(self, entry: Entry) -> None:
        """Take a line of a description."""
        self._facts.counts["describe_topic"]["ok"] += 1
        process = self._facts.processes.number(entry["process"])
        exists = entry["exists"]
        topic_id = text(entry, "topic_id") if exists else None
        partitions = natural(entry, "partitions") if exists else 0
        began = moment(entry, "began")
        found = Description(text(entry, "topic"), process, topic_id, partitions, began, entry["time"], self._facts.line)
        self._metadata.descriptions.append(found)

    def view(self, entry: Entry) -> None:
        """Take a line of a node's view."""
        self._facts.counts["view"]["ok"] += 1
        view = View(
            natural(entry, "node"), natural(entry, "version"), moment(entry, "began"), entry["time"], self._facts.line
        )
        content = entry["hash"]
        if content is not None:
            former, seen = self._hashes.setdefault(view.version, (content, view))
            if former != content and (view.version, content) not in self._told:
                self._told.add((view.version, content))
                what = f"version {view.version} is {former} on node {seen.node} and {content} on node {view.node}"
                self._metadata.diverged.append(Disagreement(seen, view, what))
        epochs: dict[PartitionKey, int] = {}
        names: dict[PartitionKey, str] = {}
        for topic, topic_id, partition, leader, leader_epoch, *_ in entry["partitions"]:
            epochs[topic_id, partition], names[topic_id, partition] = leader_epoch, topic
            last = self._metadata.last_epochs
            if last.get((topic, partition), -1) < leader_epoch:
                last[topic, partition] = leader_epoch
            if leader is not None:
                self._lead(view, (topic_id, partition, leader_epoch), leader, topic)
        self._succeed(view, epochs, names)

    def fault(self, entry: Entry) -> None:
        """Take a line of a fault."""
        faults, phase = self._metadata.faults, entry["phase"]
        window = faults.setdefault(entry["id"], Window(entry["time"]))
        if entry.get("nodes"):
            window.nodes |= frozenset(entry["nodes"])
        if phase in ("healed", "skipped"):
            window.ended = entry["time"]

    def _lead(self, view: View, key: tuple[str, int, int], leader: int, topic: str) -> None:
        former, seen = self._leaders.setdefault(key, (leader, view))
        if former != leader and (key, leader) not in self._told:
            self._told.add((key, leader))
            what = (
                f"in leader epoch {key[2]} of {topic}-{key[1]} node {former} leads as node {seen.node} shows it, "
                f"and node {leader} as node {view.node} shows it"
            )
            self._metadata.two_leaders.append(Disagreement(seen, view, what, topic, key[1]))

    def _succeed(self, view: View, epochs: dict[PartitionKey, int], names: dict[PartitionKey, str]) -> None:
        """Compare a node's view with the one before it."""
        former = self._views.get(view.node)
        if former is not None and former.ended >= view.began:
            return  # at the same time: no order
        if former is not None and view.version < former.version:
            what = f"node {view.node} showed version {former.version}, and later {view.version}"
            self._metadata.versions_back.append(Disagreement(former, view, what))
        elif former is not None:
            self._compare_epochs(former, view, epochs, names)
        self._views[view.node], self._epochs[view.node] = view, epochs

    def _compare_epochs(
        self, former: View, view: View, epochs: dict[PartitionKey, int], names: dict[PartitionKey, str]
    ) -> None:
        before = self._epochs[view.node]
        for key, epoch in epochs.items():
            if epoch < before.get(key, epoch):
                topic, partition = names[key], key[1]
                what = f"node {view.node} showed leader epoch {before[key]} of {topic}-{partition}, and later {epoch}"
                self._metadata.epochs_back.append(Disagreement(former, view, what, topic, partition))
