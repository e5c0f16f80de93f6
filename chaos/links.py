"""The links of a cluster: one proxy for each directed pair of nodes and for each clients' host and node.

Owns what is done to them. Invariant: a link is in the state that all owners of disturbances ask for together, and
nothing is asked for after `heal_all`. Proxies of others are never removed, and are left enabled, without our toxics.
"""

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from penstock.chaos.cluster import ClusterError
from penstock.chaos.sockets import open_connections
from penstock.chaos.toxics import BOTH, Stream, Toxic
from penstock.chaos.toxiproxy import Proxy, ToxiproxyServer
from penstock.chaos.traffic import Traffic, of_proxy, parse_counters
from penstock.client.ports import free_ports


@dataclass(frozen=True, slots=True)
class Link:
    """Connections that the source opens to the target. Each carries bytes both ways."""

    source: int | str
    """A node, or a clients' host."""
    target: int

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"

    @property
    def between_nodes(self) -> bool:
        """Both ends are nodes."""
        return isinstance(self.source, int)


class Cut(StrEnum):
    """How a link is cut."""

    DROP = "drop"
    """What is sent vanishes; connections stay open, and new ones open, to silence."""
    REFUSE = "refuse"
    """Connections end, and new ones are refused."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one owner asks for on one link."""

    refuse: bool = False
    toxics: tuple[Toxic, ...] = ()


class Links:
    """See the module. Use from one event loop. Every change is there, read back, when it is awaited."""

    def __init__(self, server: ToxiproxyServer, proxies: Mapping[Link, Proxy]) -> None:
        self._server = server
        self._proxies = dict(proxies)
        self._wishes: dict[Link, dict[str, _Wish]] = {link: {} for link in proxies}
        self._is_here = _is_loopback(server.api.host)

    @classmethod
    def create(
        cls, server: ToxiproxyServer, upstreams: Mapping[Link, str], listen: Mapping[Link, str] | None = None
    ) -> "Links":
        """Make a proxy for each link to its upstream address. Without a `listen` address: a free port of loopback.

        Blocks. Those that were made go with the server where one fails.
        """
        known = dict(listen or {})
        missing = [link for link in upstreams if link not in known]
        # Not of the system's choice: such a port may be taken for a connection while the link refuses.
        known |= {link: f"127.0.0.1:{port}" for link, port in zip(missing, free_ports(len(missing)), strict=True)}
        return cls(
            server, {link: server.create(str(link), upstream, known[link]) for link, upstream in upstreams.items()}
        )

    @classmethod
    def adopt(cls, server: ToxiproxyServer, names: Mapping[Link, str]) -> "Links":
        """Use the proxies of these names that a server has. What a former run left on them is taken away. Blocks."""
        links = cls(server, {link: server.adopt(name) for link, name in names.items()})
        for proxy in links._proxies.values():
            proxy.settle()
        return links

    async def close(self) -> None:
        """Heal everything and remove the proxies that are ours."""
        await self.heal_all()
        ours = [proxy for proxy in self._proxies.values() if proxy.is_ours]
        await asyncio.gather(*(asyncio.to_thread(proxy.destroy) for proxy in ours))

    @property
    def all(self) -> tuple[Link, ...]:
        """All links."""
        return tuple(self._proxies)

    def address(self, link: Link) -> str:
        """What the source dials instead of the target."""
        return self._proxy(link).listen

    def select(self, sources: Iterable[int | str], targets: Iterable[int]) -> tuple[Link, ...]:
        """Give the links from any of these to any of those, as far as there are such."""
        froms, tos = set(sources), set(targets)
        return tuple(link for link in self._proxies if link.source in froms and link.target in tos)

    async def cut(
        self, links: Iterable[Link], how: Cut = Cut.DROP, streams: Iterable[Stream] = BOTH, owner: str = ""
    ) -> None:
        """Let nothing through any more. A drop may be of one stream only."""
        toxics = tuple(Toxic("timeout", stream, {"timeout": 0}) for stream in streams)
        wish = _Wish(refuse=True) if how is Cut.REFUSE else _Wish(toxics=toxics)
        await self._ask(links, owner, wish)

    async def degrade(self, links: Iterable[Link], toxics: Iterable[Toxic], owner: str = "") -> None:
        """Disturb, by exactly these toxics: what the owner asked for on these links before is replaced."""
        await self._ask(links, owner, _Wish(toxics=tuple(toxics)))

    async def restore(self, links: Iterable[Link], owner: str = "") -> None:
        """Take back what the owner asked for. Connections that a drop held up end."""
        await self._ask(links, owner, None)

    async def heal_all(self) -> None:
        """Take back what anybody asked for, and look that nothing of ours is left."""
        for wishes in self._wishes.values():
            wishes.clear()
        await self._settle(self.all)

    async def traffic(self, links: Iterable[Link] | None = None) -> dict[Link, Traffic]:
        """Count what has passed, per link (default: all), since it was made."""
        asked = self.all if links is None else tuple(links)
        counters = parse_counters(await asyncio.to_thread(self._server.api.metrics))
        connections = await asyncio.to_thread(open_connections) if self._is_here else None
        proxies = ((link, self._proxy(link)) for link in asked)
        return {link: of_proxy(proxy.name, proxy.listen, counters, connections) for link, proxy in proxies}

    async def _ask(self, links: Iterable[Link], owner: str, wish: _Wish | None) -> None:
        asked = tuple(links)
        for link in asked:
            self._proxy(link)
        for link in asked:
            if wish is None:
                self._wishes[link].pop(owner, None)
            else:
                owned = tuple(replace(toxic, owner=owner) for toxic in wish.toxics)
                self._wishes[link][owner] = replace(wish, toxics=owned)
        await self._settle(asked)

    async def _settle(self, links: Iterable[Link]) -> None:
        """Bring about what is asked for. All are tried before the first error is raised."""
        settling = []
        for link in links:
            wishes = self._wishes[link].values()
            proxy = self._proxies[link]
            proxy.want(
                (toxic for wish in wishes for toxic in wish.toxics), enabled=not any(wish.refuse for wish in wishes)
            )
            settling.append(asyncio.to_thread(proxy.settle))
        failed = [error for error in await asyncio.gather(*settling, return_exceptions=True) if error is not None]
        if failed:
            raise failed[0]

    def _proxy(self, link: Link) -> Proxy:
        try:
            return self._proxies[link]
        except KeyError:
            raise ClusterError(f"there is no link {link}") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
