"""Requests to a Toxiproxy server by toxiproxy-python, with its gaps mended.

The library keeps one address for the whole process, waits for ever, takes a 5xx for success and cannot change a toxic.
So each `Api` has a copy of the library of its own, whose requests go through here: to its server, with a time-out,
every status checked. Blocking; may be used by several threads.
"""

import importlib.util
import itertools
import sys
from functools import partial
from types import ModuleType
from typing import Any

import requests

from penstock.chaos.cluster import ClusterError

REQUEST_TIMEOUT_S = 10.0
"""More than a busy machine needs. Toxiproxy itself gives up after 25 s, with a 503."""
_copies = itertools.count()


class ToxiproxyError(ClusterError):
    """Toxiproxy cannot be asked, refused, or did something else than it was told; the message says which."""


class ToxiproxyStuckError(ToxiproxyError):
    """No answer in time. A change of toxics waits, and all others behind it, while a peer takes no bytes."""


class Api:
    """One server, by the library."""

    def __init__(self, host: str, port: int, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.host, self.port = host, port
        self._base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._timeout_s = timeout_s
        self._library = _library_copy()
        consumer = self._library.api.APIConsumer
        consumer.host, consumer.port = host, port
        for method in ("get", "post", "delete"):
            setattr(consumer, method, partial(self._send, method))

    def version(self, timeout_s: float | None = None) -> str:
        """Give the server's version: "git" where it was built by `go install`."""
        return str(self.get("/version", timeout_s).get("version"))

    def names(self) -> tuple[str, ...]:
        """Give the names of all proxies."""
        return tuple(self._library.server.Toxiproxy().proxies())

    def create(self, name: str, upstream: str, listen: str, *, enabled: bool = True) -> None:
        """Make a proxy. Not by the library, which asks for all proxies first: that waits for one that is stuck."""
        fields = {"name": name, "upstream": upstream, "listen": listen, "enabled": enabled}
        self._send("post", "/proxies", json=fields)

    def proxy(self, name: str) -> Any:
        """Give the library's object for a proxy that exists. Raises ToxiproxyError where it does not."""
        return self._library.proxy.Proxy(**self.get(f"/proxies/{name}"))

    def update_toxic(self, proxy: str, toxic: str, fields: dict[str, Any]) -> None:
        """Change a toxic's attributes and toxicity."""
        self._send("post", f"/proxies/{proxy}/toxics/{toxic}", json=fields)

    def get(self, path: str, timeout_s: float | None = None) -> dict[str, Any]:
        """Ask for a JSON object."""
        answer = _json(self._send("get", path, timeout=timeout_s or self._timeout_s), path)
        if not isinstance(answer, dict):
            raise ToxiproxyError(f"Toxiproxy answered {self._base}{path} with no object: {answer!r}")
        return answer

    def metrics(self) -> str:
        """Ask for the counters, in Prometheus' text form. Raises ToxiproxyError where they are not switched on."""
        return self._send("get", "/metrics").text

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        url = self._base + path
        options.setdefault("timeout", self._timeout_s)
        try:
            with requests.Session() as session:
                session.trust_env = False  # no HTTP proxy of the environment between us and a proxy
                answer = session.request(method, url, **options)
        except requests.Timeout as error:
            raise ToxiproxyStuckError(
                f"Toxiproxy did not answer {method} {url} within {options['timeout']} s"
            ) from error
        except requests.RequestException as error:
            raise ToxiproxyError(f"Toxiproxy cannot be asked: {method} {url}: {error}") from error
        return _checked(answer, f"{method} {url}")


def _checked(answer: requests.Response, request: str) -> requests.Response:
    if answer.status_code == requests.codes.service_unavailable:
        raise ToxiproxyStuckError(f"Toxiproxy gave up on {request}")
    if not answer.ok:
        raise ToxiproxyError(f"Toxiproxy refused {request}: {answer.status_code} {answer.text.strip()}")
    if "json" in answer.headers.get("Content-Type", ""):
        _json(answer, request)
    return answer


def _json(answer: requests.Response, request: str) -> Any:
    try:
        return answer.json()
    except requests.JSONDecodeError as error:
        raise ToxiproxyError(f"Toxiproxy answered {request} with no JSON: {answer.text!r}") from error


def _library_copy() -> ModuleType:
    """Load toxiproxy-python once more, under a name of its own: its address is a variable of its class."""
    found = importlib.util.find_spec("toxiproxy")
    if found is None or found.origin is None:
        raise ToxiproxyError("toxiproxy-python is not installed: pip install 'penstock[chaos]'")
    spec = importlib.util.spec_from_file_location(
        f"_penstock_toxiproxy_{next(_copies)}",
        found.origin,
        submodule_search_locations=found.submodule_search_locations,
    )
    if spec is None or spec.loader is None:
        raise ToxiproxyError(f"toxiproxy-python cannot be loaded from {found.origin}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
