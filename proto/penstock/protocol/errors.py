"""The one exception of the API's error model, and its form on the wire (google.rpc.Status with ErrorInfo).

Below the API, modules raise their own domain exceptions; what reaches a client is always a PenstockError.
"""

from collections.abc import Mapping

from google.rpc import error_details_pb2, status_pb2

from penstock.protocol.reasons import DOMAIN, Outcome, Reason


class PenstockError(Exception):
    """An error with its reason, a message for people, and details for programs."""

    def __init__(self, reason: Reason, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})

    @property
    def outcome(self) -> Outcome:
        """What may be concluded about the effect of the call."""
        return self.reason.outcome

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.message}"


def to_status(error: PenstockError) -> status_pb2.Status:
    """The error as google.rpc.Status, with ErrorInfo in its details."""
    info = error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=error.metadata)
    status = status_pb2.Status(code=int(error.reason.code), message=error.message)
    status.details.add().Pack(info)
    return status


def from_status(status: status_pb2.Status) -> PenstockError:
    """The error that a google.rpc.Status carries; a reason this version does not know becomes INTERNAL."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
            break
    if info.domain == DOMAIN and info.reason in Reason.__members__:
        return PenstockError(Reason[info.reason], status.message, info.metadata)
    return PenstockError(Reason.INTERNAL, status.message or f"status code {status.code}", {"reason": info.reason})
