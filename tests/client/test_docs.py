"""The examples of docs/client.md run as they stand."""

import asyncio
import re
from pathlib import Path

import pytest

from penstock.client import blocking
from tests.client.conftest import ServedCluster

GUIDE = Path(__file__).parents[2] / "docs" / "client.md"
ALL_EXAMPLES = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
IN_GROUPS = [example for example in ALL_EXAMPLES if "group=" in example]
"""These run on real nodes: tests/cluster/test_group_blocking.py."""
EXAMPLES = [example for example in ALL_EXAMPLES if example not in IN_GROUPS]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    number: int, served: ServedCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with blocking.Admin(served.cluster.bootstrap()) as admin:
        admin.create_topic("orders", 2)
        admin.create_topic("ledger")
    with blocking.Producer(served.cluster.bootstrap()) as producer:
        for count in range(100):
            producer.send("orders", b"%d" % count, key=b"%d" % count)
    names: dict[str, object] = {"BOOTSTRAP": served.cluster.bootstrap(), "DIRECTORY": str(tmp_path)}
    exec(compile(EXAMPLES[number], f"{GUIDE.name} example {number}", "exec"), names)
    main = names["main"]
    assert callable(main)
    result = main()
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    assert "lost" not in capsys.readouterr().out


def test_no_example_has_a_task_for_each_record() -> None:
    assert len(EXAMPLES) >= 10
    assert not [example for example in ALL_EXAMPLES if "create_task" in example or "gather" in example]
