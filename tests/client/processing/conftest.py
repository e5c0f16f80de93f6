"""Fixtures of the tests of process()."""

import pytest


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run waits for its poll: not as long as an application's may."""
    monkeypatch.setattr("penstock.client.processing.run.TICK_S", 0.02)
