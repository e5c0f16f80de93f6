"""What a consumer in a group says in its log."""

import pytest

from penstock.client.errors import make_error
from penstock.client.group.rebalances import log_failures
from penstock.protocol.reasons import Reason
from tests.client.group.talk import partition


def test_what_many_partitions_have_in_common_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lost, late = make_error(Reason.UNKNOWN_MEMBER, "was silent"), make_error(Reason.STALE_COMMIT, "came late")
    log_failures({**{partition(index): lost for index in range(1_000)}, partition(2_000): late})
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("not committed: orders-0, orders-1, ")
    assert first.endswith(" and 995 more: UNKNOWN_MEMBER: was silent")
    assert second == "not committed: orders-2000: STALE_COMMIT: came late"
