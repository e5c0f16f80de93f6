"""Faults of links, done to the real Toxiproxy in front of nodes that echo: what is cut and left, and was it hit."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import pytest

from penstock.chaos import links as links_module
from penstock.chaos.faults import evidence
from penstock.chaos.faults.base import Fault, FaultError, Injected, Params, Shape, Site
from penstock.chaos.faults.links import ASYMMETRIES, FAULTS, _Flaps, ring_cuts
from penstock.chaos.faults.reach import reach
from penstock.chaos.links import Link, Links
from penstock.chaos.sockets import open_connections
from penstock.chaos.toxiproxy import ToxiproxyServer
from penstock.chaos.toxiproxy_api import ToxiproxyError
from penstock.chaos.traffic import Flow, Traffic
from tests.chaos.proxied import Client, Echo, EchoCluster, KnownRoles, disturbed, started, until

NODES, HOSTS = (1, 2, 3), ("c1", "c2")
SHAPE = Shape(nodes=NODES, voters=NODES, hosts=HOSTS)
PEERS = tuple(Link(a, b) for a, b in permutations(NODES, 2))
CLIENTS = tuple(Link(host, node) for host in HOSTS for node in NODES)
BY_NAME: dict[str, Fault] = {fault.name: fault for fault in FAULTS}
UP, DOWN = frozenset({("timeout", "upstream")}), frozenset({("timeout", "downstream")})
DROP = UP | DOWN
FIRST = {"role": "leader", "order": [1, 2, 3]}
"""Node 1: see KnownRoles."""
OF_NODE_1 = {link for link in PEERS if 1 in (link.source, link.target)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxiproxyServer]:
    yield from started(tmp_path_factory.mktemp("faults"))


@pytest.fixture
async def site(server: ToxiproxyServer) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        nodes = {node_id: Echo() for node_id in NODES}
        for node in nodes.values():
            await node.start()
            stack.push_async_callback(node.stop)
        upstreams = {link: nodes[link.target].address for link in (*PEERS, *CLIENTS)}
        links = await asyncio.to_thread(Links.create, server, upstreams)
        stack.push_async_callback(links.close)
        cluster = EchoCluster(nodes)
        yield Site(cluster, KnownRoles(cluster), links)


def links_of(site: Site) -> Links:
    assert site.links is not None
    return site.links


async def inject(site: Site, name: str, params: Params) -> Injected:
    assert BY_NAME[name].missing(site) is None
    return await BY_NAME[name].inject(site, params)


@contextlib.asynccontextmanager
async def clients(site: Site, links: tuple[Link, ...] = (*PEERS, *CLIENTS)) -> AsyncIterator[dict[Link, Client]]:
    """Open a connection through each link, used already."""
    async with contextlib.AsyncExitStack() as stack:
        opened = {}
        for link in links:
            opened[link] = await stack.enter_async_context(Client.to(links_of(site).address(link)))
            await opened[link].echo()
        yield opened


# ---- drawing


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_drawn_depends_on_seed_and_shape_alone_and_is_json(fault: Fault) -> None:
    for seed in range(20):
        drawn = fault.draw(random.Random(seed), SHAPE)
        assert drawn == fault.draw(random.Random(seed), SHAPE)
        assert json.loads(json.dumps(drawn)) == drawn
    assert fault.summary


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(FAULTS) == 15


def test_every_asymmetry_is_drawn() -> None:
    drawn = {BY_NAME["asymmetric"].draw(random.Random(seed), SHAPE)["asymmetry"] for seed in range(30)}
    assert drawn == set(ASYMMETRIES)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_every_drawn_fault_can_be_injected_and_healed(server: ToxiproxyServer, site: Site, fault: Fault) -> None:
    async with clients(site):
        for seed in range(3):
            params = fault.draw(random.Random(seed), SHAPE)
            injected = await fault.inject(site, params)
            assert injected.effect.detail
            await injected.heal()
            assert disturbed(server, links_of(site)) == {}


# ---- what cannot be done


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_without_proxies_a_fault_is_skipped(fault: Fault) -> None:
    cluster = EchoCluster({})
    assert fault.missing(Site(cluster, KnownRoles(cluster))) == "no proxies"


async def test_without_proxies_between_nodes_or_for_clients_the_reason_is_named(
    server: ToxiproxyServer, site: Site
) -> None:
    some = {Link(1, 2): "1-2", Link(2, 1): "2-1"}
    few = replace(site, links=await asyncio.to_thread(Links.adopt, server, some))
    assert BY_NAME["cut-node"].missing(few) == "no proxy from node 1 to node 3"
    assert BY_NAME["cut-client"].missing(few) == "no proxies between clients and nodes"


# ---- what is cut


@dataclass(frozen=True)
class Case:
    name: str
    params: Params
    found: dict[Link, object]
    nodes: tuple[int, ...] = (1,)
    majority: bool = True
    cut_hosts: tuple[str, ...] = ()


OUT = {link for link in OF_NODE_1 if link.source == 1}
IN = OF_NODE_1 - OUT
TO_NODE_1 = {Link(host, 1) for host in HOSTS}
CASES = [
    Case("cut-node", FIRST, dict.fromkeys(OF_NODE_1, DROP)),
    Case("cut-node", {"role": "controller", "order": [1, 2, 3]}, dict.fromkeys(
        {link for link in PEERS if 2 in (link.source, link.target)}, DROP), (2,)),
    Case("cut-node", {"role": "follower", "order": [1, 2, 3]}, dict.fromkeys(
        {link for link in PEERS if 3 in (link.source, link.target)}, DROP), (3,)),
    Case("cut-node", {"node": 1}, dict.fromkeys(OF_NODE_1, DROP)),
    Case("cut-node-and-clients", FIRST, dict.fromkeys(OF_NODE_1 | TO_NODE_1, DROP)),
    Case("refuse-node", {**FIRST, "clients": False}, dict.fromkeys(OF_NODE_1, "refuse")),
    Case("refuse-node", {**FIRST, "clients": True}, dict.fromkeys(OF_NODE_1 | TO_NODE_1, "refuse")),
    Case("halves", {"order": [3, 2, 1], "minority_hosts": ["c2"]}, dict.fromkeys(
        OF_NODE_1 | {Link("c1", 1), Link("c2", 2), Link("c2", 3)}, DROP), cut_hosts=("c2",)),
    Case("ring", {"order": [3, 1, 2]}, dict.fromkeys({Link(1, 3), Link(3, 1)}, DROP), (1, 3)),
    Case("asymmetric", {**FIRST, "asymmetry": "cannot dial"}, dict.fromkeys(OUT, DROP)),
    Case("asymmetric", {**FIRST, "asymmetry": "hears nobody"}, {
        **dict.fromkeys(OUT, DOWN), **dict.fromkeys(IN, UP)}),
    Case("asymmetric", {**FIRST, "asymmetry": "is not heard"}, {
        **dict.fromkeys(OUT, UP), **dict.fromkeys(IN, DOWN)}),
    Case("cut-client", {"host": "c1", "nodes": [1, 3]}, dict.fromkeys((Link("c1", 1), Link("c1", 3)), DROP), (),
         cut_hosts=("c1",)),
    Case("cut-all-peers", {}, dict.fromkeys(PEERS, DROP), NODES, majority=False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_cut_is_of_these_links_and_says_what_it_leaves(server: ToxiproxyServer, site: Site, case: Case) -> None:
    injected = await inject(site, case.name, case.params)
    assert disturbed(server, links_of(site)) == case.found
    effect = injected.effect
    assert (effect.nodes, effect.majority, effect.cut_hosts) == (case.nodes, case.majority, case.cut_hosts)
    await injected.heal()
    assert disturbed(server, links_of(site)) == {}


async def test_a_node_that_is_down_already_counts(site: Site) -> None:
    assert isinstance(site.cluster, EchoCluster)
    site.cluster.down.add(3)
    injected = await inject(site, "cut-node", FIRST)
    assert not injected.effect.majority
    await injected.heal()


@pytest.mark.parametrize("name", ["reset-links", "limit-data", "slow-close"])
async def test_links_whose_connections_end_again_and_again_do_not_count_as_working(site: Site, name: str) -> None:
    strength = {"after_ms": 0, "toxicity": 1.0, "bytes": 1_000, "delay_ms": 1}
    one = await inject(site, name, {**FIRST, **strength, "scope": "node and clients"})
    assert one.effect.majority
    assert one.effect.cut_hosts == ()
    await one.heal()
    every = await inject(site, name, {**FIRST, **strength, "scope": "all"})
    assert not every.effect.majority
    await every.heal()


async def test_faults_that_overlap_do_not_undo_each_other(server: ToxiproxyServer, site: Site) -> None:
    first = await inject(site, "cut-node", FIRST)
    second = await inject(site, "cut-node-and-clients", FIRST)
    await second.heal()
    assert disturbed(server, links_of(site)) == dict.fromkeys(OF_NODE_1, DROP)
    await first.heal()
    assert disturbed(server, links_of(site)) == {}


@pytest.mark.parametrize("name", ["cut-node", "slow-link"])
async def test_what_was_begun_is_undone_when_it_fails_half_way(server: ToxiproxyServer, site: Site, name: str) -> None:
    links = links_of(site)
    server.api.proxy("1-3").destroy()
    params = {**FIRST, "scope": "node", "latency_ms": 10, "jitter_ms": 0}
    with pytest.raises(ToxiproxyError, match="proxy not found"):
        await inject(site, name, params)
    server.create("1-3", "127.0.0.1:1", links.address(Link(1, 3)))
    assert disturbed(server, links) == {}


async def test_there_must_be_something_to_cut(site: Site) -> None:
    with pytest.raises(FaultError, match="no link"):
        await inject(site, "cut-client", {"host": "c7", "nodes": [1]})


# ---- what is left


@pytest.mark.parametrize(
    ("voters", "running", "cut", "majority", "cut_hosts"),
    [
        ((1, 2, 3), (1, 2, 3), [], True, ()),
        ((1, 2, 3), (1, 2, 3), [("c1", 3)], True, ("c1",)),
        ((1, 2, 3), (1, 2, 3), [("c1", 3), (1, 3), (2, 3)], True, ()),
        ((1, 2, 3), (1, 2, 3), [("c1", 1), (1, 3), (2, 3)], True, ("c1",)),
        ((1, 2, 3), (1, 2, 3), [("c1", 1), (1, 3)], True, ("c1",)),
        ((1, 2, 3), (1, 2, 3), [(1, 2), (3, 1), (2, 3)], False, ()),
        ((1, 2, 3), (1, 2), [], True, ()),
        ((1, 2, 3), (1, 2), [("c1", 3)], True, ()),
        ((1, 2, 3), (1, 2), [(2, 1)], False, ()),
        ((1, 2, 3), (1,), [], False, ()),
        ((1,), (1,), [], True, ()),
        ((1,), (1,), [("c1", 1)], True, ("c1",)),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), [(5, node) for node in range(1, 5)], True, ()),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), [(a, b) for a in (4, 5) for b in (1, 2, 3)], False, ()),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), ring_cuts([1, 2, 3, 4, 5]), False, ()),
        ((1, 2, 3), (1, 2, 3, 4), [(4, node) for node in (1, 2, 3)], True, ()),
        ((1, 2, 3), (1, 2, 3, 4), [(4, 1), (3, 1)], True, ("c1",)),
    ],
)
def test_a_majority_is_left_where_all_but_one_node_see_each_other(
    voters: tuple[int, ...],
    running: tuple[int, ...],
    cut: list[tuple[int | str, int]],
    *,
    majority: bool,
    cut_hosts: tuple[str, ...],
) -> None:
    links = [Link(a, b) for a, b in permutations(running, 2)] + [Link("c1", node) for node in voters]
    severed = {Link(source, target) for source, target in cut}
    if (4, 1) in cut and (3, 1) in cut:
        severed.add(Link("c1", 2))
    left = reach(voters, running, links, severed)
    assert (left.majority, left.cut_hosts) == (majority, cut_hosts)


@pytest.mark.parametrize("count", range(3, 10))
def test_on_a_ring_each_node_reaches_a_majority_and_no_two_the_same(count: int) -> None:
    ring = list(range(1, count + 1))
    cut = {pair for a, b in ring_cuts(ring) for pair in ((a, b), (b, a))}
    reached = [frozenset(other for other in ring if (node, other) not in cut) for node in ring]
    assert all(len(seen) > count / 2 for seen in reached)
    assert cut
    if count > 3:
        assert len(set(reached)) == count


# ---- did it hit


async def test_a_cut_of_connections_in_use_hit_them(site: Site) -> None:
    async with clients(site):
        injected = await inject(site, "cut-node", FIRST)
        hit = await injected.heal()
    assert hit.hit
    if open_connections() is not None:
        assert hit.evidence.startswith("4 connections were open when it came, 0 ended at once")


async def test_a_refusal_of_connections_in_use_ended_them(site: Site) -> None:
    async with clients(site) as opened:
        injected = await inject(site, "refuse-node", {**FIRST, "clients": True})
        assert await opened[Link("c1", 1)].end() == b""
        hit = await injected.heal()
    assert hit.hit


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "cut-client"], ids=lambda case: case.name)
async def test_a_cut_that_stopped_no_connection_has_not_hit(site: Site, case: Case) -> None:
    injected = await inject(site, case.name, case.params)
    assert not (await injected.heal()).hit


async def test_a_connection_made_into_a_cut_was_hit(site: Site) -> None:
    if open_connections() is None:
        pytest.skip("open connections are told by Linux only")
    injected = await inject(site, "cut-client", {"host": "c1", "nodes": [1]})
    async with Client.to(links_of(site).address(Link("c1", 1))):

        async def is_seen() -> bool:
            return bool((await links_of(site).traffic())[Link("c1", 1)].dialled_from)

        await until(is_seen)
        hit = await injected.heal()
    assert hit.hit
    assert "0 connections were open when it came, 0 ended at once, 1 were opened into it" in hit.evidence


@pytest.mark.parametrize("used", [True, False])
async def test_where_open_connections_are_not_told_the_ended_ones_prove_a_cut(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, used: bool
) -> None:
    monkeypatch.setattr(links_module, "open_connections", lambda: None)
    async with clients(site, tuple(OF_NODE_1) if used else CLIENTS):
        injected = await inject(site, "cut-node", FIRST)
        hit = await injected.heal()
    assert hit.hit is used


STRENGTHS: dict[str, Params] = {
    "slow-link": {"latency_ms": 20, "jitter_ms": 10},
    "narrow-link": {"kb_per_s": 100},
    "sliced": {"size": 100, "variation": 50, "delay_us": 10},
}


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize(
    ("scope", "used"), [("node", True), ("node", False), ("node and clients", True), ("all", True)]
)
async def test_a_strain_hit_if_bytes_passed_during_it(site: Site, name: str, scope: str, *, used: bool) -> None:
    if open_connections() is None:
        pytest.skip("the bytes of open connections are told by Linux only")
    async with clients(site) as opened:
        injected = await inject(site, name, {**FIRST, **STRENGTHS[name], "scope": scope})
        assert injected.effect.majority
        assert injected.effect.nodes == (NODES if scope == "all" else (1,))
        await opened[Link(1, 2) if used else Link(2, 3)].echo(bytes(1_000))
        hit = await injected.heal()
    assert hit.hit is used


BREAKS: dict[str, Params] = {
    "reset-links": {"after_ms": 0, "toxicity": 1.0},
    "limit-data": {"bytes": 100},
    "slow-close": {"bytes": 100, "delay_ms": 1},
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("used", [True, False])
async def test_a_break_hit_if_connections_ended(site: Site, name: str, *, used: bool) -> None:
    async with clients(site) as opened:
        injected = await inject(site, name, {**FIRST, **BREAKS[name], "scope": "node"})
        if used:
            opened[Link(1, 2)].writer.write(bytes(1_000))
            with contextlib.suppress(ConnectionResetError):
                await opened[Link(1, 2)].end()
        hit = await injected.heal()
    assert hit.hit is used, hit.evidence


@pytest.mark.parametrize("how", ["drop", "refuse"])
async def test_a_flapping_link_is_cut_and_restored_again_and_again(
    server: ToxiproxyServer, site: Site, how: str
) -> None:
    injected = await inject(site, "flapping", {**FIRST, "period_s": 0.1, "how": how})
    assert isinstance(injected, _Flaps)

    async def use() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with Client.to(links_of(site).address(Link(1, 2))) as client:
                    while True:
                        await client.echo()

    async def was_hit_twice() -> bool:
        return injected._that_hit >= 2

    using = asyncio.create_task(use())
    await until(was_hit_twice)
    using.cancel()
    await asyncio.gather(using, return_exceptions=True)
    hit = await injected.heal()
    assert hit.hit
    assert hit.evidence.endswith("cuts hit open connections")
    assert disturbed(server, links_of(site)) == {}


async def test_a_flapping_that_broke_off_is_told(server: ToxiproxyServer, site: Site) -> None:
    injected = await inject(site, "flapping", {**FIRST, "period_s": 0.1, "how": "drop"})
    assert isinstance(injected, _Flaps)
    server.api.proxy("1-3").destroy()

    async def broke_off() -> bool:
        return injected._task.done()

    await until(broke_off)
    with pytest.raises(ToxiproxyError, match="proxy not found"):
        await injected.heal()
    server.create("1-3", "127.0.0.1:1", links_of(site).address(Link(1, 3)))


def test_counts_that_went_back_are_no_traffic() -> None:
    """A connection that Toxiproxy forgot to count when it ended."""
    more = {Link(1, 2): Traffic(Flow(received=10), Flow(sent=10), frozenset())}
    less = {Link(1, 2): Traffic(Flow(received=4), Flow(sent=4), frozenset())}
    assert not evidence.of_strain(more, less).hit
    assert evidence.of_strain(less, more).hit
