"""All kinds of anomalies, and all that is allowed, in the order of the report. The one place where a kind joins."""

from penstock.chaos.checker.anomaly import Allowance, Check
from penstock.chaos.checker.data import Duplicate, FailedButPresent, InconsistentOffsets, Invented, RepeatedSend
from penstock.chaos.checker.missing import AckedPastFinalLog, FinalReadingsDiffer, LostWrite, UnexplainedGap, Unseen
from penstock.chaos.checker.torn import TornAppend

CHECKS: tuple[type[Check], ...] = (
    LostWrite,
    Unseen,
    AckedPastFinalLog,
    InconsistentOffsets,
    Duplicate,
    FailedButPresent,
    Invented,
    TornAppend,
    FinalReadingsDiffer,
)
ALLOWANCES: tuple[type[Allowance], ...] = (RepeatedSend, UnexplainedGap)
KINDS: tuple[str, ...] = tuple(check.kind for check in CHECKS)
