"""The simulated network keeps its word: frames of a connection in order and whole, whatever the links do."""

import random

import pytest

from tests.simulation.kernel.network import GIVE_UP_S, End, Network, Weather
from tests.simulation.kernel.scheduler import Scheduler


class Pair:
    """A connection from "a" to "b", and what both sides hear."""

    def __init__(self, seed: int) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler, self.scheduler.rng("network"), Weather(slow_share=0.2, slow_s=0.3))
        self.heard: dict[str, list[object]] = {"a": [], "b": []}
        self.closed: dict[str, list[str]] = {"a": [], "b": []}
        self.ends: dict[str, End] = {}
        self.network.listen("b", 1, self.take)
        self.network.connect("a", "b", 1, self.take)

    def take(self, end: End | str) -> None:
        assert isinstance(end, End)
        self.ends[end.host] = end
        end.on_frame = self.heard[end.host].append
        end.on_close = self.closed[end.host].append

    def stand(self) -> None:
        self.pass_time(1.0)
        assert set(self.ends) == {"a", "b"}

    def pass_time(self, seconds: float) -> None:
        self.scheduler.run_until(self.scheduler.now + seconds)


@pytest.mark.parametrize("seed", range(40))
def test_frames_arrive_in_order_and_whole_over_links_that_are_cut_and_heal(seed: int) -> None:
    pair = Pair(seed)
    pair.stand()
    rng = random.Random(seed)
    sent: dict[str, list[object]] = {"a": [], "b": []}
    for number in range(400):
        host = rng.choice("ab")
        sent[host].append(number)
        pair.ends[host].send(number)
        pair.pass_time(rng.choice((0, 0.001, 0.05)))
        if rng.random() < 0.1:
            pair.network.cut(*rng.choice((("a", "b"), ("b", "a"))))
        if rng.random() < 0.3:
            pair.network.heal_all()
    pair.network.heal_all()
    pair.pass_time(2.0)
    if not pair.closed["a"] and not pair.closed["b"]:
        assert pair.heard == {"a": sent["b"], "b": sent["a"]}
    for host, other in (("a", "b"), ("b", "a")):
        assert pair.heard[host] == sent[other][: len(pair.heard[host])]


def test_a_close_arrives_after_what_was_sent_before_it() -> None:
    pair = Pair(1)
    pair.stand()
    for number in range(5):
        pair.ends["a"].send(number)
    pair.ends["a"].close("bye")
    pair.ends["b"].send("too late")
    pair.pass_time(1.0)
    assert pair.heard["b"] == [0, 1, 2, 3, 4]
    assert pair.closed == {"a": [], "b": ["bye"]}
    assert pair.heard["a"] == []


def test_what_is_sent_over_a_cut_waits_and_is_given_up_in_the_end() -> None:
    pair = Pair(2)
    pair.stand()
    pair.network.cut("a", "b")
    pair.ends["a"].send("x")
    pair.ends["b"].send("y")
    pair.pass_time(0.4 * GIVE_UP_S)
    assert pair.heard == {"a": ["y"], "b": []}
    pair.pass_time(GIVE_UP_S)
    assert pair.closed == {"a": ["connection timed out"], "b": ["connection timed out"]}


def test_a_reset_ends_both_sides_at_once() -> None:
    pair = Pair(3)
    pair.stand()
    pair.network.cut("a", "b", reset=True)
    assert pair.closed == {"a": ["connection reset"], "b": ["connection reset"]}


def test_a_lost_process_is_told_and_a_lost_host_is_not() -> None:
    pair = Pair(4)
    pair.stand()
    pair.network.lose_host("b", silently=False)
    pair.pass_time(1.0)
    assert pair.closed["a"] == ["connection reset"]
    pair = Pair(4)
    pair.stand()
    pair.network.lose_host("b", silently=True)
    pair.pass_time(0.4 * GIVE_UP_S)
    assert pair.closed["a"] == []
    pair.network.power("b")
    pair.ends["a"].send("who is there")
    pair.pass_time(1.0)
    assert pair.closed["a"] == ["connection reset"]


def test_a_dial_is_refused_waits_over_a_cut_and_can_be_given_up() -> None:
    pair = Pair(5)
    pair.stand()
    answers: list[object] = []
    pair.network.connect("a", "b", 2, answers.append)
    pair.network.connect("a", "nobody", 1, answers.append)
    pair.pass_time(1.0)
    assert answers == ["refused", "refused"]
    pair.network.cut("a", "b")
    pair.network.connect("a", "b", 2, answers.append)
    gone = pair.network.connect("a", "b", 2, answers.append)
    pair.pass_time(3.0)
    assert len(answers) == 2
    gone.give_up()
    pair.network.heal_all()
    pair.pass_time(1.0)
    assert len(answers) == 3


def test_what_the_server_sends_first_comes_after_the_answer() -> None:
    for seed in range(50):
        scheduler = Scheduler(seed)
        network = Network(scheduler, scheduler.rng("network"))
        heard: list[object] = []

        def greet(end: End) -> None:
            end.send("hello")
            end.close("bye")

        def answered(end: End | str, heard: list[object] = heard) -> None:
            assert isinstance(end, End)
            end.on_frame = heard.append
            end.on_close = heard.append

        network.listen("b", 1, greet)
        network.connect("a", "b", 1, answered)
        scheduler.run_until(scheduler.now + 1.0)
        assert heard == ["hello", "bye"]
