"""A failed write fails what relies on it, also where the group had to be tried in parts."""

from pathlib import Path

from penstock.storage import AppendFailedError
from penstock.storage.writes import Append, CheckpointHighWatermark, MoveStart, Truncate, Write
from tests.storage.support import batch, commit, new_log, new_store


def test_failed_append_fails_what_is_queued_behind_it_in_every_part_of_the_group(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    log, other, third = (new_log(store, number) for number in (1, 2, 3))
    breaks_off = batch(0, append_time_ms=2**70)  # fits no row: fails as a bug would, so the group is tried in parts
    writes: list[Write] = [
        Append(log, 0, (batch(0),)),
        Append(log, 0, (batch(5),)),  # refused
        Append(other, 0, (batch(0),)),
        Append(third, 0, (breaks_off,)),
        Append(log, 0, (batch(1),)),  # would fit, but was queued behind a refused one
        Truncate(log, 0, 0),
        Append(third, 0, (batch(0),)),
        CheckpointHighWatermark(log, 1),
        MoveStart(other, 0, 1),
    ]
    outcomes = commit(store, *writes)
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        AppendFailedError,
        type(None),
        AppendFailedError,
        AppendFailedError,
        AppendFailedError,
        AppendFailedError,
        type(None),
        type(None),
    ]
    assert [(each.state.log_start_offset, each.state.log_end_offset) for each in (log, other, third)] == [
        (0, 1),
        (1, 1),
        (0, 0),
    ]
    assert log.state.high_watermark == 1
    assert commit(store, Append(log, 0, (batch(1),)))[0].error is None, "the next group begins anew"
    store.close()
