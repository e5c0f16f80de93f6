"""Pages of a sorted list. A token is the last item shown, so that a page stays right while items come and go."""

import base64
from collections.abc import Sequence

from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page(items: Sequence[str], size: int, token: str) -> tuple[Sequence[str], str]:
    """Return one page of sorted `items` and the token of the next, "" at the end. `size` 0 is DEFAULT_PAGE."""
    if size > MAX_PAGE:
        raise PenstockError(Reason.INVALID_ARGUMENT, f"page_size {size} is above {MAX_PAGE}")
    after = decode_token(token)
    rest = [item for item in items if item > after] if token else items
    shown = rest[: size or DEFAULT_PAGE]
    return shown, encode_token(shown[-1]) if len(rest) > len(shown) else ""


def encode_token(item: str) -> str:
    """Return the token that stands for an item."""
    return base64.urlsafe_b64encode(item.encode()).decode()


def decode_token(token: str) -> str:
    """Return the item that a token stands for. Raises INVALID_ARGUMENT."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise PenstockError(Reason.INVALID_ARGUMENT, "page_token is not one that this service gave") from error
