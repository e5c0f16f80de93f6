"""Placement: spread over nodes and racks, leaders balanced, deterministic."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.raft.image import EMPTY_IMAGE, Address, MetadataImage, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.placement import TooFewNodesError, candidates, load_of, place
from penstock.raft.topic_config import TopicConfig


def image_of(racks: dict[int, str]) -> MetadataImage:
    """Live nodes in racks."""
    nodes = {
        node_id: NodeInfo(node_id, node_id, b"s", b"t", Address("h", 1), Address("h", 2), rack)
        for node_id, rack in racks.items()
    }
    return replace(EMPTY_IMAGE, nodes=nodes)


def with_topic(image: MetadataImage, placed: list[tuple[int, ...]], name: str = "t") -> MetadataImage:
    """The image with a topic placed so."""
    partitions = tuple(
        PartitionInfo(index, replicas, replicas, (), replicas[0], 0, 0, 1) for index, replicas in enumerate(placed)
    )
    topic = TopicInfo(name.encode(), name, TopicConfig(), partitions)
    return replace(image, topics={**image.topics, topic.topic_id: topic})


CLUSTERS = st.dictionaries(st.integers(1, 9), st.sampled_from(["a", "b", "c"]), min_size=1, max_size=7)


@settings(max_examples=100, deadline=None)
@given(CLUSTERS, st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**64))
def test_every_partition_is_spread_and_the_topic_balanced(
    racks: dict[int, str], partitions: int, factor: int, seed: int
) -> None:
    factor = min(factor, len(racks))
    placed = place(image_of(racks), partitions, factor, seed)
    assert len(placed) == partitions
    leaders = Counter(replicas[0] for replicas in placed)
    assert max(leaders.values()) - min(leaders[node] for node in racks) <= 1
    for replicas in placed:
        assert len(set(replicas)) == factor
        assert set(replicas) <= racks.keys()
        used = Counter(racks[node] for node in replicas)
        assert len(used) == min(factor, len(set(racks.values()))), "a rack was used twice while another was free"
    assert placed == place(image_of(racks), partitions, factor, seed)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 7), st.integers(1, 60), st.integers(0, 99))
def test_replicas_are_balanced_where_racks_do_not_matter(nodes: int, partitions: int, seed: int) -> None:
    placed = place(image_of(dict.fromkeys(range(1, nodes + 1), "")), partitions, 3, seed)
    held = Counter(node for replicas in placed for node in replicas)
    assert max(held.values()) - min(held[node] for node in range(1, nodes + 1)) <= 2


def test_many_small_topics_balance_over_the_cluster() -> None:
    image = image_of({1: "", 2: "", 3: ""})
    for number in range(30):
        image = with_topic(image, place(image, 1, 3, seed=number * 7919), f"t{number}")
    assert Counter(load_of(image.topics.values()).leaders) == {1: 10, 2: 10, 3: 10}


def test_added_partitions_go_on_where_the_topic_stands() -> None:
    image = with_topic(image_of({1: "", 2: "", 3: ""}), [(1, 2, 3), (1, 3, 2)])
    added = place(image, 4, 3, seed=0, present=image.topics[b"t"])
    assert Counter(replicas[0] for replicas in added) == {2: 2, 3: 2}


def test_seconds_in_line_differ_so_that_a_dead_nodes_partitions_spread() -> None:
    placed = place(image_of({1: "", 2: "", 3: ""}), 12, 3, seed=0)
    seconds = Counter(replicas[1] for replicas in placed if replicas[0] == 1)
    assert len(seconds) == 2, placed


def test_fenced_and_draining_nodes_get_nothing() -> None:
    image = image_of({1: "", 2: "", 3: "", 4: ""})
    nodes = {
        **image.nodes,
        1: replace(image.nodes[1], fenced=True),
        2: replace(image.nodes[2], draining=True),
    }
    image = replace(image, nodes=nodes)
    assert candidates(image) == {3: "", 4: ""}
    assert set(place(image, 1, 2, 0)[0]) == {3, 4}
    with pytest.raises(TooFewNodesError, match=r"replication factor 3 .* live nodes, 2"):
        place(image, 1, 3, 0)
    with pytest.raises(TooFewNodesError):
        place(image, 1, 0, 0)
