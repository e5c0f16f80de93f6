"""Why a generation began, in words. Pure. Bounded: what is too much is counted."""

from collections import OrderedDict
from collections.abc import Iterable

from penstock.node.group.session import Condemned
from penstock.raft.image import MemberInfo

CAUSES_TOLD = 5
"""In one text."""
CAUSE_CHARACTERS = 150
"""Of one cause: 5 of them, and how many more there were, fit into what the metadata keeps."""
REMEMBERED_MEMBERS = 200
"""Removed members of a group, the latest, who are told why if they come again."""


def name_of(member: MemberInfo) -> str:
    """Return what people call a member, and its id."""
    if not member.client_id:
        return f"member {_short(member.member_id)}"
    return f"member {_short(member.client_id)} ({_short(member.member_id)})"


def told(causes: Iterable[str]) -> str:
    """Return one text of several causes."""
    every = list(dict.fromkeys(causes))
    text = "; ".join(cause[:CAUSE_CHARACTERS] for cause in every[:CAUSES_TOLD])
    return text + (f"; and {len(every) - CAUSES_TOLD} more" if every[CAUSES_TOLD:] else "")


class Removed:
    """Why the latest removed members of a group were removed."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, Condemned] = OrderedDict()

    def note(self, member_id: str, condemned: Condemned) -> None:
        """A member was removed."""
        self._latest[member_id] = condemned
        while len(self._latest) > REMEMBERED_MEMBERS:
            self._latest.popitem(last=False)

    def of(self, member_id: str) -> Condemned | None:
        """Return what it was condemned for; None: not known."""
        return self._latest.get(member_id)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
