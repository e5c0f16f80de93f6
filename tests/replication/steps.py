"""The actions of the replication world as values, and as the words of a trace: `deliver A C append back=1`.

A step is a verb, the nodes by letter, then what the verb asks for:

    start N, crash N, wipe N, copy N, restore N      processes and disks
    register N [unanswered]                          the answer may be lost
    fence N, elect N                                 the controller
    apply N [nth=1] [unanswered]                     an ISR change that N sent reaches the metadata
    resend N                                         N sends its ISR change again
    learn N [back=2]                                 N's view moves on, to the newest image or to one so many older
    produce N p0, submit N p0 s2                     a producer sends the next record; one out of its turn
    repeat N p0 s1, ask N                            a producer sends a record again; a reader asks for the end
    flush N [fail=0], outcomes N                     the disk commits what is queued (that write fails); the node hears
    open N, push N M                                 a follower opens a stream; a leader sends what it has
    deliver N M [kind] [back=1]                      the oldest message arrives, of M's stream or N's, or of one before
    lose N M [back=1]                                it is lost, its stream being dead
    unreachable N M                                  leader N finds M's address refusing connections
    wait, tick N                                     half a second passes; N's timer goes off
    exchange N M ...                                 these nodes do all they can among themselves
    committed 2                                      not an action: so many records are committed by now
    settle [N M ...]                                 progress without faults; nodes not named stay cut off
"""

from collections.abc import Callable
from typing import NamedTuple

from tests.replication.fair import settle
from tests.replication.invariants import NAMES, Violation
from tests.replication.world import NODES, World

LETTERS = {letter: node_id for node_id, letter in NAMES.items()}


class Step(NamedTuple):
    """`options` sorted by name; what a flag is given is True."""

    verb: str
    args: tuple[int, ...] = ()
    options: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        marks = SHAPES[self.verb]
        words = [_word(arg, marks[i] if i < len(marks) else "N") for i, arg in enumerate(self.args)]
        words += [name if value is True else f"{name}={value}" for name, value in self.options]
        return " ".join([self.verb, *words])


def _word(arg: int, mark: str) -> str:
    return {"N": NAMES.get(arg, "?"), "P": f"p{arg}", "S": f"s{arg}", "#": str(arg)}[mark]


SHAPES = {
    "start": "N", "register": "N", "crash": "N", "wipe": "N", "copy": "N", "restore": "N", "fence": "N", "elect": "N",
    "apply": "N", "resend": "N", "learn": "N", "produce": "NP", "submit": "NPS", "repeat": "NPS", "ask": "N",
    "flush": "N", "outcomes": "N", "open": "N", "push": "NN", "deliver": "NN", "lose": "NN", "unreachable": "NN",
    "wait": "", "tick": "N", "exchange": "", "committed": "#", "settle": "",
}  # fmt: skip
"""What the arguments are: node, producer, sequence, number. Beyond them: nodes."""
KINDS = {"open", "fetch", "append", "progress", "diverge", "seed", "refuse"}


def parse(text: str) -> tuple[Step, str]:
    """The step, and the kind of message that is named in it, or ""."""
    verb, *words = text.split()
    args: list[int] = []
    options: dict[str, int] = {}
    kind = ""
    for word in words:
        name, equals, number = word.partition("=")
        if word in LETTERS:
            args.append(LETTERS[word])
        elif word.lstrip("ps").isdigit():
            args.append(int(word.lstrip("ps")))
        elif word in KINDS:
            kind = word
        else:
            options[name] = int(number) if equals else True
    step = Step(verb, tuple(args), tuple(sorted(options.items())))
    if _text(step, kind) != text:
        raise ValueError(f"{text!r} is not how a step is written; {_text(step, kind)!r} is")
    return step, kind


def _text(step: Step, kind: str) -> str:
    if not kind:
        return str(step)
    plain = str(step._replace(options=()))
    return " ".join([plain, kind, *str(step)[len(plain) :].split()])


def describe(world: World, step: Step) -> str:
    """The step's words before it is done, with the kind of the message that it is about."""
    if step.verb not in {"deliver", "lose"}:
        return str(step)
    message = world.first_in((step.args[0], step.args[1], dict(step.options).get("back", 0)))
    return _text(step, message.kind if message is not None else "")


def do(world: World, step: Step) -> bool:
    """Do it, note it in the world's trace, check the invariants; False: it cannot be done, and nothing changed."""
    verb: Callable[..., bool] = VERBS.get(step.verb) or getattr(type(world), step.verb)
    world.trace.append(step)
    if not verb(world, *step.args, **dict(step.options)):
        del world.trace[-1]
        return False
    world.check()
    return True


def _committed(world: World, count: int) -> bool:
    found = len(world.committed)
    if found != count:
        raise Violation(f"I10 {found} records are committed, {count} could be")
    return True


def _settle(world: World, *among: int) -> bool:
    settle(world, among or NODES)
    return True


VERBS: dict[str, Callable[..., bool]] = {"committed": _committed, "settle": _settle}
