"""Each class of faults against real nodes, behind real proxies, for some seconds: valid, and the faults hit.

Every run prints its seed and leaves its folder: pytest keeps the temporary folders of its last runs.
"""

import os
from pathlib import Path

import pytest

from penstock.chaos.run import VALID, Run, RunOptions
from penstock.chaos.scenario import SCENARIOS
from penstock.chaos.toxiproxy import ToxiproxyMissingError, find_binary

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.fixture(autouse=True)
def _proxies() -> None:
    try:
        find_binary()
    except ToxiproxyMissingError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.quick])
def test_valid(name: str, tmp_path: Path) -> None:
    print(f"{name}, seed {SEED}, in {tmp_path}")
    document = Run(RunOptions(SCENARIOS[name], SEED, tmp_path, say=print)).perform()
    assert document["verdict"] == VALID, (tmp_path, document["reasons"], document["anomalies"])
    if name == "quick-dropping":
        assert document["allowed"]["dropped"] > 0
        assert any('msg="compacted ' in log.read_text() for log in (tmp_path / "logs").iterdir())
    if name == "quick-groups":
        counts = document["counts"]
        assert all(counts[f]["ok"] for f in ("group_commit", "handed", "group_released", "group_offset")), counts
    faults = document["measures"]["faults"]
    assert not [fault for fault in faults if fault["status"] == "failed"], tmp_path
    if name == "quick-control":
        records = document["measures"]["records"]
        assert records["unknown"] == records["failed"] == 0, records
        assert records["acked"] > 0
    elif all(fault["status"] == "skipped" for fault in faults):
        pytest.skip(f"no fault can be done here: {faults[0]['detail']}")
    else:
        assert any(fault["hit"] for fault in faults), (tmp_path, faults)
