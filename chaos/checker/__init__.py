"""Judges a run by its history: what must not be, and where it is.

`check(path)` reads a history (penstock.chaos.history) once into Facts, which are columns of numbers, asks each check of
the registry, and gives a Verdict. Nothing here knows clusters, clients or files other than the history; whatever is
judged is provable from the history's fields alone, under its contract: a process is one client, which does one thing
after the other or invokes writes in the order in which it hands them over.

- Data: `data`, `missing`, `torn`. What is dropped: `starts`, `keys`. Order: `polling`, `sending`. Watermarks:
  `watermarks`. Leader epochs: `epochs`. Metadata: `elections`, `changes`. Groups: `groups`, `group_offsets`.
- Where more grows. Transactions (G1a, precommitted-read, torn-transaction, txn-offset mismatch, G0, G1c): a module
  `transactions`, its functions of the history in an `ingest_transactions` with tables in Facts (as `groups`,
  `ingest_groups` and `memberships` have it), and `missing.FinalReadingsDiffer` and `missing.UnexplainedGap` then know
  aborted records and control records. A reader joins in `ingest._handlers`, a kind in `registry`.
"""

from penstock.chaos.checker.check import check
from penstock.chaos.checker.registry import KINDS
from penstock.chaos.checker.verdict import Anomaly, Operation, Verdict
from penstock.chaos.history import HistoryError

__all__ = ["Anomaly", "HistoryError", "KINDS", "Operation", "Verdict", "check"]
