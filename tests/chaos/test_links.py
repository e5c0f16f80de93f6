"""Links, each a real proxy to a node that echoes: what cutting and disturbing one does to real connections."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from penstock.chaos import links as module
from penstock.chaos import toxics
from penstock.chaos.cluster import ClusterError
from penstock.chaos.links import Cut, Link, Links
from penstock.chaos.sockets import Connection, open_connections
from penstock.chaos.toxics import Stream, Toxic
from penstock.chaos.toxiproxy import ToxiproxyServer
from penstock.chaos.toxiproxy_api import ToxiproxyError
from penstock.chaos.traffic import Flow, of_proxy, parse_counters
from tests.chaos.proxied import Client, Echo, disturbed, started, until

CUT, OTHER, CLIENTS = Link(1, 2), Link(2, 1), Link("c1", 2)
DROP = {("timeout", "upstream"), ("timeout", "downstream")}
SAMPLES = """
# TYPE toxiproxy_proxy_received_bytes_total counter
toxiproxy_proxy_received_bytes_total{direction="upstream",listener="[::]:7",proxy="1-2",upstream="h:1"} 1.5e+06
toxiproxy_proxy_sent_bytes_total{direction="upstream",listener="[::]:7",proxy="1-2",upstream="h:1"} 12
toxiproxy_proxy_received_bytes_total{direction="downstream",listener="[::]:7",proxy="1-2",upstream="h:1"} 3
toxiproxy_proxy_received_bytes_total{direction="downstream",listener="[::]:8",proxy="1-2",upstream="h:1"} 4
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxiproxyServer]:
    yield from started(tmp_path_factory.mktemp("links"))


@pytest.fixture
async def node() -> AsyncIterator[Echo]:
    echo = Echo()
    await echo.start()
    yield echo
    await echo.stop()


@pytest.fixture
async def links(server: ToxiproxyServer, node: Echo) -> AsyncIterator[Links]:
    links = await asyncio.to_thread(Links.create, server, dict.fromkeys((CUT, OTHER, CLIENTS), node.address))
    yield links
    await links.close()


async def swallowed(links: Links, link: Link, count: int) -> None:
    """Wait until the proxy has taken in so many bytes of the source's."""
    if open_connections() is None:
        pytest.skip("the bytes of open connections are told by Linux only")

    async def taken_in() -> bool:
        return (await links.traffic([link]))[link].upstream.received >= count

    await until(taken_in)


async def test_bytes_pass_a_link(links: Links) -> None:
    async with Client.to(links.address(CUT)) as client:
        await client.echo()


async def test_a_drop_swallows_what_is_sent_and_keeps_connections_open(links: Links, node: Echo) -> None:
    async with Client.to(links.address(CUT)) as client, Client.to(links.address(OTHER)) as other:
        await client.echo()
        await links.cut([CUT])
        client.writer.write(b"lost")
        await swallowed(links, CUT, len("hello" + "lost"))
        await other.echo()
        assert node.received == 2 * len("hello")
        assert not client.reader.at_eof()


async def test_connections_made_into_a_drop_open_to_silence(links: Links, node: Echo) -> None:
    await links.cut([CUT])
    async with Client.to(links.address(CUT)) as client:
        client.writer.write(b"lost")
        await swallowed(links, CUT, len("lost"))
        assert node.received == 0


async def test_restoring_a_drop_ends_what_it_held_up_and_lets_new_connections_through(links: Links) -> None:
    async with Client.to(links.address(CUT)) as client:
        await client.echo()
        await links.cut([CUT])
        client.writer.write(b"lost")
        await links.restore([CUT])
        assert await client.end() == b""
    async with Client.to(links.address(CUT)) as client:
        await client.echo()


async def test_a_refusal_ends_connections_and_refuses_new_ones(links: Links) -> None:
    async with Client.to(links.address(CUT)) as client, Client.to(links.address(OTHER)) as other:
        await client.echo()
        await other.echo()
        await links.cut([CUT], Cut.REFUSE)
        assert await client.end() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*links.address(CUT).split(":"))
        await other.echo()
    await links.restore([CUT])
    async with Client.to(links.address(CUT)) as client:
        await client.echo()


async def test_a_cut_of_the_stream_upwards_loses_what_the_source_sends(links: Links, node: Echo) -> None:
    async with Client.to(links.address(CUT)) as client:
        await client.echo()
        await links.cut([CUT], streams=[Stream.UPSTREAM])
        client.writer.write(b"lost")
        await swallowed(links, CUT, len("hello" + "lost"))
        assert node.received == len("hello")


async def test_a_cut_of_the_stream_downwards_loses_what_the_source_gets(links: Links, node: Echo) -> None:
    async with Client.to(links.address(CUT)) as client:
        await client.echo()
        await links.cut([CUT], streams=[Stream.DOWNSTREAM])
        client.writer.write(b"heard")

        async def heard() -> bool:
            return node.received == len("hello" + "heard")

        await until(heard)
        await links.restore([CUT])
        assert await client.end() == b""


@pytest.mark.parametrize(
    "wanted",
    [
        toxics.latency(30, 10, toxicity=0.3),
        toxics.latency(30),
        toxics.bandwidth(100),
        toxics.slow_close(500),
        toxics.timeout(1_000),
        toxics.slicer(100, 50, 10),
        toxics.limit_data(1_000),
        toxics.reset_peer(10),
        (Toxic("latency", Stream.UPSTREAM, {"latency": 7}),),
        toxics.latency(5) + toxics.bandwidth(100),
    ],
    ids=lambda wanted: "+".join(toxic.kind for toxic in wanted),
)
async def test_a_link_shows_the_toxics_that_it_was_given_and_none_after(
    server: ToxiproxyServer, links: Links, wanted: tuple[Toxic, ...]
) -> None:
    await links.degrade([CUT], wanted)
    assert disturbed(server, links) == {CUT: {(toxic.kind, toxic.stream) for toxic in wanted}}
    await links.restore([CUT])
    assert disturbed(server, links) == {}


@pytest.mark.parametrize("wanted", [toxics.latency(20, 10), toxics.bandwidth(200), toxics.slicer(64, 32, 10)])
async def test_a_strained_link_loses_nothing(links: Links, wanted: tuple[Toxic, ...]) -> None:
    async with Client.to(links.address(CUT)) as client:
        await client.echo()
        await links.degrade([CUT], wanted)
        await client.echo(bytes(range(256)) * 64)
        await links.restore([CUT])
        await client.echo()


async def test_a_link_of_limited_data_ends_after_it(links: Links) -> None:
    await links.degrade([CUT], toxics.limit_data(100))
    async with Client.to(links.address(CUT)) as client:
        client.writer.write(bytes(1_000))
        assert len(await client.end()) <= 100


async def test_a_link_that_resets_does_so_when_data_comes(links: Links) -> None:
    await links.degrade([CUT], toxics.reset_peer())
    async with Client.to(links.address(CUT)) as client:
        client.writer.write(b"data")
        with pytest.raises(ConnectionResetError):
            await client.end()


async def test_toxics_are_exchanged_for_others(server: ToxiproxyServer, links: Links) -> None:
    await links.degrade([CUT], toxics.latency(10) + toxics.bandwidth(100))
    await links.degrade([CUT], toxics.latency(20))
    shown = server.api.get(f"/proxies/{CUT}")["toxics"]
    assert [toxic["attributes"]["latency"] for toxic in shown] == [20, 20]


async def test_what_one_owner_takes_back_another_still_wants(server: ToxiproxyServer, links: Links) -> None:
    await links.cut([CUT], owner="a")
    await links.cut([CUT, OTHER], owner="b")
    await links.degrade([CUT], toxics.latency(10), owner="c")
    await links.restore([CUT, OTHER], owner="a")
    latency = {("latency", "upstream"), ("latency", "downstream")}
    assert disturbed(server, links) == {CUT: DROP | latency, OTHER: DROP}
    await links.cut([CUT], Cut.REFUSE, owner="d")
    await links.restore([CUT, OTHER], owner="b")
    assert disturbed(server, links) == {CUT: "refuse"}
    await links.restore([CUT], owner="d")
    assert disturbed(server, links) == {CUT: latency}
    await links.heal_all()
    assert disturbed(server, links) == {}


async def test_healing_takes_away_what_a_former_run_has_left(server: ToxiproxyServer, links: Links) -> None:
    left = await asyncio.to_thread(Links.adopt, server, {CUT: str(CUT)})
    await left.cut([CUT], owner="former")
    await links.heal_all()
    assert disturbed(server, links) == {}


async def test_an_unknown_link_is_an_error_before_anything_is_changed(server: ToxiproxyServer, links: Links) -> None:
    for change in (links.cut, links.restore):
        with pytest.raises(ClusterError, match="there is no link 7-8"):
            await change([CUT, Link(7, 8)])
    with pytest.raises(ClusterError, match="there is no link 7-8"):
        links.address(Link(7, 8))
    assert disturbed(server, links) == {}


async def test_where_one_link_fails_the_others_are_changed(server: ToxiproxyServer, links: Links) -> None:
    server.api.proxy(str(CUT)).destroy()
    with pytest.raises(ToxiproxyError, match="proxy not found"):
        await links.cut([CUT, OTHER])
    assert server.api.get(f"/proxies/{OTHER}")["toxics"]
    await links.restore([OTHER])
    server.create(str(CUT), "127.0.0.1:1", links.address(CUT))  # for the fixture's end


async def test_links_are_chosen_by_their_ends(links: Links) -> None:
    assert set(links.select([1, "c1"], [2])) == {CUT, CLIENTS}
    assert links.select([1], [1]) == ()
    assert set(links.all) == {CUT, OTHER, CLIENTS}
    assert [link.between_nodes for link in (CUT, CLIENTS)] == [True, False]


async def test_own_proxies_are_removed_at_the_end(server: ToxiproxyServer, node: Echo) -> None:
    links = await asyncio.to_thread(Links.create, server, {Link(8, 9): node.address})
    assert "8-9" in server.api.names()
    await links.close()
    assert "8-9" not in server.api.names()


# ---- proxies of others


async def test_proxies_of_others_are_left_enabled_and_without_our_toxics_alone(
    server: ToxiproxyServer, links: Links
) -> None:
    theirs = server.api.proxy(str(CUT))
    theirs.add_toxic(name="theirs", type="latency", stream="upstream", attributes={"latency": 1})
    theirs.add_toxic(name="penstock-former-timeout-upstream", type="timeout", stream="upstream", attributes={})
    theirs.disable()
    adopted = await asyncio.to_thread(Links.adopt, server, {Link("c9", 2): str(CUT)})
    assert adopted.address(Link("c9", 2)) == links.address(CUT)
    assert disturbed(server, links) == {}
    await adopted.cut([Link("c9", 2)], Cut.REFUSE)
    await adopted.close()
    shown = server.api.get(f"/proxies/{CUT}")
    assert shown["enabled"]
    assert [toxic["name"] for toxic in shown["toxics"]] == ["theirs"]


async def test_a_proxy_that_is_not_there_cannot_be_adopted(server: ToxiproxyServer) -> None:
    with pytest.raises(ToxiproxyError, match="404"):
        await asyncio.to_thread(Links.adopt, server, {CUT: "nobody"})


# ---- traffic


async def test_traffic_of_open_connections_is_known(links: Links) -> None:
    if open_connections() is None:
        pytest.skip("the bytes of open connections are told by Linux only")
    async with Client.to(links.address(CUT)) as client:
        await client.echo(bytes(1_000))
        own = client.writer.get_extra_info("sockname")

        async def confirmed() -> bool:
            return (await links.traffic([CUT]))[CUT].downstream.sent == 1_000

        await until(confirmed)
        known = (await links.traffic())[CUT]
        assert known.upstream.received == 1_000
        assert known.dialled_from == frozenset({own})
        assert (await links.traffic())[OTHER] == of_proxy("", "127.0.0.1:1", {}, [])


async def test_traffic_of_ended_connections_is_known(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Toxiproxy's own counters, so that it is known of one on another machine too."""
    monkeypatch.setattr(module, "open_connections", lambda: None)
    async with Client.to(links.address(CUT)) as client:
        await client.echo(bytes(1_000))

    async def counted() -> bool:
        known = (await links.traffic([CUT]))[CUT]
        assert known.dialled_from is None
        return known.upstream == Flow(1_000, 1_000) and known.downstream.received == 1_000

    await until(counted)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_tells_of_both_ends(family: socket.AddressFamily, address: str) -> None:
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError as error:
        pytest.skip(f"{address}: {error}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"twelve bytes")
            assert accepted.recv(100) == b"twelve bytes"
            ends = client.getsockname()[:2], accepted.getsockname()[:2]
            (found,) = [end for end in open_connections() or () if (end.local, end.remote) == ends[::-1]]
            assert (found.received, found.sent) == (12, 0)


def test_counters_are_read_for_each_proxy_and_address() -> None:
    counters = dict(parse_counters(SAMPLES))
    here = ("1-2", "[::]:7")
    assert counters.pop(("1-2", "[::]:8", "downstream")) == Flow(4, 0)
    assert counters == {(*here, "upstream"): Flow(1_500_000, 12), (*here, "downstream"): Flow(3, 0)}


@pytest.mark.parametrize(
    ("listen", "counts"),
    [("127.0.0.1:7", True), ("[::]:7", True), ("0.0.0.0:7", True), ("127.0.0.2:7", False), ("127.0.0.1:8", False)],
)
def test_connections_belong_to_the_proxy_that_listens_there(listen: str, *, counts: bool) -> None:
    here = Connection(("127.0.0.1", 7), ("127.0.0.1", 5_000), received=3, sent=4)
    known = of_proxy(
        "p", listen, {("p", listen, "upstream"): Flow(10, 9), ("p", listen, "downstream"): Flow(8, 7)}, [here]
    )
    assert known.upstream == Flow(13 if counts else 10, 9)
    assert known.downstream == Flow(8, 11 if counts else 7)
    assert known.dialled_from == frozenset({here.remote} if counts else ())
