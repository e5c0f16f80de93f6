"""The library is pinned by version and by source."""

import pytest

from penstock.raft import audit
from penstock.raft.errors import UnauditedLibraryError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "check", audit.check.__wrapped__)


def test_the_installed_library_is_the_audited_one() -> None:
    audit.check()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.3.18")
    with pytest.raises(UnauditedLibraryError, match=r"0\.3\.18 is installed"):
        audit.check()


def test_another_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "FILES", ("node.py",))
    with pytest.raises(UnauditedLibraryError, match="reinstall"):
        audit.check()
