"""Single lies in a history. Each changes one thing, so that no cluster that does everything right could have given it.

A corruption gets the history and a way to choose, and changes the history in place. The model's beginning sees to it
that there is always something to change.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.chaos.checker.model import Entry

T = TypeVar("T")


class Choose:
    """Chooses by a number for each question."""

    def __init__(self, number: Callable[[int], int]) -> None:
        self._number = number

    def __call__(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self._number(len(options))]


Corruption = Callable[[list[Entry], Choose], None]


def lose_an_acknowledged_record(entries: list[Entry], choose: Choose) -> None:
    partition, offset = choose(_acknowledged(entries))
    for read in _finals(entries, partition):
        read["records"] = [record for record in read["records"] if record[0] != offset]


def lose_a_record_in_one_isolation(entries: list[Entry], choose: Choose) -> None:
    read = choose([read for read in _finals(entries) if read["records"]])
    read["records"].remove(choose(read["records"]))


def cut_off_an_acknowledged_end(entries: list[Entry], choose: Choose) -> None:
    partition, offset = choose(_acknowledged(entries))
    for read in _finals(entries, partition):
        read["records"] = [record for record in read["records"] if record[0] < offset]
        read["to"] = offset
    for entry in entries:
        if entry["f"] == "end_of_log" and entry["partition"] == partition:
            entry["offset"] = offset


def swap_two_records(entries: list[Entry], choose: Choose) -> None:
    read = choose([read for read in _finals(entries) if len(read["records"]) > 1])
    index = choose(range(len(read["records"]) - 1))
    first, second = read["records"][index : index + 2]
    if first[1] == second[1]:  # a record that is there twice: nothing would change
        second[1] = 10**6
    first[1], second[1] = second[1], first[1]


def repeat_a_record(entries: list[Entry], choose: Choose) -> None:
    """In a place of its own, at the end."""
    once = {entry["value"] for entry in entries if entry["f"] == "send" and entry.get("idempotent")}
    partition, value = choose(
        [(read["partition"], record[1]) for read in _finals(entries) for record in read["records"] if record[1] in once]
    )
    for read in _finals(entries, partition):
        read["records"].append([read["to"], value, read["records"][-1][2]])
        read["to"] += 1
    for entry in entries:
        if entry["f"] == "end_of_log" and entry["partition"] == partition:
            entry["offset"] += 1


def move_an_acknowledgement(entries: list[Entry], choose: Choose) -> None:
    entry = choose([entry for entry in entries if entry["f"] in ("send", "append") and entry["type"] == "ok"])
    entry["offset"] += choose(range(1, 4))


def invent_a_value(entries: list[Entry], choose: Choose) -> None:
    read = choose([read for read in _reads(entries) if read["records"]])
    choose(read["records"])[1] = choose([-1, 10**6])


def fail_what_is_there(entries: list[Entry], choose: Choose) -> None:
    values = {record[1] for read in _finals(entries) for record in read["records"]}
    ops = {entry["op"] for entry in entries if entry["f"] == "send" and entry.get("value") in values}
    entry = choose(
        [entry for entry in entries if entry["f"] == "send" and entry["type"] == "info" and entry["op"] in ops]
    )
    entry["type"] = "fail"


def send_it_elsewhere(entries: list[Entry], choose: Choose) -> None:
    values = {record[1] for read in _finals(entries) for record in read["records"]}
    entry = choose([entry for entry in entries if entry["f"] == "send" and entry.get("value") in values])
    entry["partition"] = 1 - entry["partition"]


def change_an_epoch(entries: list[Entry], choose: Choose) -> None:
    read = choose([read for read in _finals(entries) if read["records"]])
    choose(read["records"])[2] += 1


def skip_in_a_poll(entries: list[Entry], choose: Choose) -> None:
    read = choose([read for read in _reads(entries, final=False) if read["records"]])
    read["records"].remove(choose(read["records"]))


def turn_a_poll_around(entries: list[Entry], choose: Choose) -> None:
    choose([read for read in _reads(entries, final=False) if len(read["records"]) > 1])["records"].reverse()


def move_a_poll(entries: list[Entry], choose: Choose) -> None:
    """Its position before is another than its first record says."""
    choose([read for read in _reads(entries, final=False) if read["records"]])["from"] += 1


def name_an_end_too_high(entries: list[Entry], choose: Choose) -> None:
    ends = {entry["partition"]: entry["offset"] for entry in entries if entry["f"] == "end_of_log"}
    entry = choose([entry for entry in entries if entry["f"] == "end_offset"])
    entry["offset"] = ends[entry["partition"]] + choose(range(1, 4))


def name_an_end_too_low(entries: list[Entry], choose: Choose) -> None:
    """An end at the very beginning, after a record had been acknowledged."""
    landed = [entry for entry in entries if entry["f"] == "send" and entry["type"] == "ok"]
    partitions = {entry["op"]: entry["partition"] for entry in entries if entry["type"] == "invoke"}
    before = {partitions[entry["op"]]: entry["time"] for entry in reversed(landed)}
    asked = [entry for entry in entries if entry["f"] == "end_offset" and entry["isolation"] == "read_uncommitted"]
    entry = choose([entry for entry in asked if before.get(entry["partition"], 1e9) < entry["began"]])
    entry["offset"] = 0


ALL: tuple[Corruption, ...] = (
    lose_an_acknowledged_record,
    lose_a_record_in_one_isolation,
    cut_off_an_acknowledged_end,
    swap_two_records,
    repeat_a_record,
    move_an_acknowledgement,
    invent_a_value,
    fail_what_is_there,
    send_it_elsewhere,
    change_an_epoch,
    skip_in_a_poll,
    turn_a_poll_around,
    move_a_poll,
    name_an_end_too_high,
    name_an_end_too_low,
)


def _reads(entries: list[Entry], *, final: bool | None = None) -> list[dict[str, Any]]:
    polls = [entry for entry in entries if entry["f"] == "poll" and final in (None, bool(entry.get("final")))]
    return [read for entry in polls for read in entry["reads"]]


def _finals(entries: list[Entry], partition: int | None = None) -> list[dict[str, Any]]:
    return [read for read in _reads(entries, final=True) if partition in (None, read["partition"])]


def _acknowledged(entries: list[Entry]) -> list[tuple[int, int]]:
    """Partition and offset of what was acknowledged."""
    invoked = {entry["op"]: entry for entry in entries if entry["type"] == "invoke"}
    done = [(invoked[entry["op"]], entry) for entry in entries if "op" in entry and entry["type"] == "ok"]
    return [
        (begun["partition"], entry["offset"] + index)
        for begun, entry in done
        for index in range(len(begun.get("values", (0,))))
    ]
