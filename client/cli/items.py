"""Commands that name several things: each is done by itself, and has its own error."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from penstock.client import PenstockError
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, error_document, say
from penstock.client.cli.settings import Settings


async def each(
    names: Sequence[str], act: Callable[[str], Awaitable[None]], *, at_once: int = 1
) -> dict[str, PenstockError]:
    """Act on one after the other, or on some at a time; the errors by name. That of an only one is raised."""
    failed: dict[str, PenstockError] = {}
    limit = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with limit:
            try:
                await act(name)
            except PenstockError as error:
                failed[name] = error

    await asyncio.gather(*map(one, names))
    errors = {name: failed[name] for name in names if name in failed}
    if errors and len(names) == 1:
        raise next(iter(errors.values()))
    return errors


def with_errors(document: dict[str, Any], errors: Mapping[str, PenstockError]) -> dict[str, Any]:
    """Add the errors, where there are some, to a JSON document."""
    if errors:
        document["errors"] = {name: error_document(error) for name, error in errors.items()}
    return document


def finish(settings: Settings, errors: Mapping[str, PenstockError]) -> int:
    """Tell people the errors; the exit code."""
    if not settings.is_json:
        for error in errors.values():
            say(f"penstock: {error}")
    return EXIT_FAILED if errors else EXIT_OK
