"""What the program refuses before it asks anyone."""

import json
import os
import sys

import pytest

from penstock.client.cli import main, run


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("topic create", "name one topic"),
        ("topic create a --topic b", "name one topic"),
        ("topic create a --partitions many", "--partitions"),
        ("topic create a --partitions 0", "--partitions"),
        ("topic create a --config x", "KEY=VALUE"),
        ("topic create a --config =x", "KEY=VALUE"),
        ("topic create a --replica-assignment 1:x", "1:2:3,2:3:1"),
        ("topic list --dry-run", "--dry-run"),
        ("topic list --timeout 0", "above 0"),
        ("topic alter a", "nothing to change"),
        ("topic delete", "name the topics"),
        ("topic delete a", "--yes"),
        ("topic make", "make"),
        ("--watch produce t", "--watch does not apply"),
        ("--yes topic list", "--yes does not apply"),
        ("-b x:1 dev status", "--bootstrap-server does not apply"),
        ("produce", "name one topic"),
        ("produce a --acks most", "most"),
        ("produce a --compression rar", "rar"),
        ("produce a --property parse.keys=true", "parse.key"),
        ("produce a --property parse.key=true --key k", "exclude"),
        ("consume", "name the topics"),
        ("consume a b --partition 1", "one topic"),
        ("consume a --offset 7", "--partition"),
        ("consume a --offset -7 --partition 1", "0 or more"),
        ("consume a --offset soon", "soon"),
        ("consume a --offset latest --from-beginning", "exclude"),
        ("consume a --isolation none", "none"),
        ("consume a --property print.key=true", "does not apply"),
        ("dev up --nodes 0", "--nodes"),
        ("group describe", "--all"),
        ("group describe g --all", "--all"),
        ("group members", "name one group"),
        ("group members a --group b", "name one group"),
        ("group history g --limit 0", "--limit"),
        ("group seek g", "where to once"),
        ("group seek g --to 1 --to-latest", "where to once"),
        ("group seek g --to soon", "soon"),
        ("group seek g --to @soon", "soon"),
        ("group seek g --to 1 --topic a:x", "orders:0,1"),
        ("group seek g --to-datetime soon", "--to-datetime"),
        ("group list --yes", "--yes"),
        ("group delete", "name the groups to delete"),
        ("group delete a", "--yes"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what(
    line: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert run([*line.split(), "--format=json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["reason"] == "USAGE"
    assert told in error["message"]
    assert err == ""


def test_wrong_usage_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topic", "create"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "penstock topic create --help" in err


@pytest.mark.parametrize("line", ["--help", "topic --help", "produce -h", "dev up --help", "--version"])
def test_help_and_version(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 0
    assert "penstock" in capsys.readouterr().out


def test_grpcs_own_log_lines_do_not_reach_the_terminal_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["penstock", "--help"])
    for asked, then in ((None, "ERROR"), ("DEBUG", "DEBUG")):
        monkeypatch.setenv("GRPC_VERBOSITY", asked or "")
        if asked is None:
            monkeypatch.delenv("GRPC_VERBOSITY")
        with pytest.raises(SystemExit):
            main()
        assert os.environ["GRPC_VERBOSITY"] == then
