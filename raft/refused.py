"""How applying ends early: with a reason, and no effect. Never leaves `raft.state`."""

from penstock.internal.v1 import metadata_pb2 as pb


class Refused(Exception):  # noqa: N818  an outcome, not a fault
    """The command, or one change of a batch, is not applied."""

    def __init__(self, refusal: "pb.Refusal.ValueType", detail: str) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.detail = detail


def malformed(detail: str) -> Refused:
    """A command that no controller should have sent."""
    return Refused(pb.REFUSAL_MALFORMED, detail)


def stale(detail: str) -> Refused:
    """A command decided on an image that is no longer present."""
    return Refused(pb.REFUSAL_STALE, detail)
