"""The global options: accepted before the noun and after the verb, resolved to one Settings for a command.

Owns which command takes which of them. An option that a command cannot honour is refused, never ignored.
"""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from penstock.client import Admin
from penstock.client.devcluster import DevCluster, DevClusterError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
DEFAULT_TIMEOUT_S = 30.0

P = ParamSpec("P")


class Format(StrEnum):
    """How results are written to standard output."""

    TABLE = "table"
    """For people."""
    JSON = "json"
    """One object a command, errors included (`consume`: one a record)."""
    TSV = "tsv"
    """Tab-separated with a header line; tab, newline and backslash are escaped."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options of one command; None or False where not given."""

    bootstrap: str | None = None
    format: Format | None = None
    timeout: float | None = None
    dry_run: bool = False
    yes: bool = False
    watch: bool = False

    @property
    def is_json(self) -> bool:
        """Whether results and errors are JSON."""
        return self.format is Format.JSON

    @property
    def timeout_s(self) -> float:
        """Longest time for one call to the cluster."""
        return DEFAULT_TIMEOUT_S if self.timeout is None else self.timeout

    def servers(self) -> str:
        """Addresses to ask first: the option, $PENSTOCK_BOOTSTRAP, the running dev cluster, or 127.0.0.1:9092."""
        given = self.bootstrap or os.environ.get("PENSTOCK_BOOTSTRAP")
        return given or _running_dev_cluster() or DEFAULT_BOOTSTRAP

    def admin(self) -> Admin:
        """Make a client for administration."""
        return Admin(self.servers(), timeout_ms=int(self.timeout_s * 1000))


def home() -> Path:
    """Folder of the dev cluster: $PENSTOCK_HOME, or penstock/ in the XDG state directory."""
    own = os.environ.get("PENSTOCK_HOME")
    if own:
        return Path(own)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "penstock"


def _running_dev_cluster() -> str | None:
    try:
        cluster = DevCluster.find(home() / "dev")
    except DevClusterError:
        return None  # `penstock dev` says what is wrong with it
    if cluster is None or not any(cluster.is_running(node_id) for node_id in cluster.node_ids):
        return None
    return cluster.bootstrap


def _positive(value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise typer.BadParameter("must be above 0")
    return value


_OPTIONS: dict[str, Any] = {
    "bootstrap": Annotated[
        str | None,
        typer.Option(
            "--bootstrap-server",
            "-b",
            metavar="HOST:PORT,...",
            help="Nodes to ask first. Default: $PENSTOCK_BOOTSTRAP, the running dev cluster, or 127.0.0.1:9092.",
        ),
    ],
    "format": Annotated[Format | None, typer.Option("--format", help="How to write results. Default: table.")],
    "timeout": Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", help="Longest time for one call. Default: 30.", callback=_positive
        ),
    ],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Only check whether it could be done.")],
    "yes": Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")],
    "watch": Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds until stopped.")],
}
_DEFAULTS = Settings()


def _parameters(names: tuple[str, ...]) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=getattr(_DEFAULTS, name), annotation=_OPTIONS[name]) for name in names
    ]


def command(
    app: typer.Typer, name: str, *options: str
) -> Callable[[Callable[Concatenate[Settings, P], int]], Callable[Concatenate[Settings, P], int]]:
    """Register a command that takes Settings first and returns its exit code.

    It takes --format and those of the other global options that `options` names (by their field of Settings).
    """
    accepted = ("format", *options)

    def register(function: Callable[Concatenate[Settings, P], int]) -> Callable[Concatenate[Settings, P], int]:
        own = list(inspect.signature(function).parameters.values())[1:]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        @functools.wraps(function)
        def call(*, context: typer.Context, **arguments: Any) -> int:
            given = {option: arguments.pop(option) for option in accepted}
            return function(_merge(context, given), **arguments)  # type: ignore[call-arg]  # as typer parsed them

        named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        signature = inspect.Signature([context, *named, *_parameters(accepted)])
        call.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
        app.command(name)(call)
        return function

    return register


def _merge(context: typer.Context, given: dict[str, Any]) -> Settings:
    before: Settings = context.obj
    for field in fields(Settings):
        if field.name not in given and getattr(before, field.name) != field.default:
            option = "bootstrap-server" if field.name == "bootstrap" else field.name.replace("_", "-")
            raise typer.BadParameter(f"--{option} does not apply to `{context.command_path}`")
    return replace(before, **{name: value for name, value in given.items() if value != getattr(_DEFAULTS, name)})


def root(app: typer.Typer) -> None:
    """Let `app` take every global option before the noun."""

    def callback(*, context: typer.Context, **given: Any) -> None:
        given.pop("version")
        context.obj = Settings(**given)

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    version = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_VERSION)
    parameters = [context, *_parameters(tuple(_OPTIONS)), version]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    app.callback()(callback)


def _show_version(wanted: bool) -> None:
    if wanted:
        from penstock import __version__  # noqa: PLC0415  needed by this option alone

        typer.echo(f"penstock {__version__}")
        raise typer.Exit


_VERSION = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")]
