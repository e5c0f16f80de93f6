"""The command line program `penstock`: noun, then verb. One module a noun.

Data on standard output; progress and errors on standard error. Exit codes: 0 ok, 1 failure of any item, 2 usage,
10 unhealthy, 130 interrupted. Uses nothing but `penstock.client`.
"""

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

import typer

from penstock.client.cli import (
    bench,
    broker,
    cluster,
    completion,
    consume,
    dev,
    group,
    group_history,
    group_seek,
    produce,
    topic,
    trim,
)
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, EXIT_USAGE, report, say
from penstock.client.cli.settings import root
from penstock.client.devcluster import DevClusterError
from penstock.protocol.errors import PenstockError

app = typer.Typer(
    help="Penstock: a durable, partitioned, replicated log.\n\n\b\nBegin with: penstock dev up",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
root(app)
trim.register(topic.app)
app.add_typer(topic.app, name="topic")
produce.register(app)
consume.register(app)
group_seek.register(group.app)
group_history.register(group.app)
app.add_typer(group.app, name="group")
app.add_typer(cluster.app, name="cluster")
app.add_typer(broker.app, name="broker")
app.add_typer(bench.app, name="bench")
app.add_typer(dev.app, name="dev")
app.command("completion")(completion.completion)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. Every error is reported here."""
    as_json = _wants_json(arguments)
    try:
        code = app(args=list(arguments), prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
    except PenstockError as error:
        report(error, as_json=as_json)
        return EXIT_FAILED
    except DevClusterError as error:
        _fail("DEV_CLUSTER", str(error), as_json=as_json)
        return EXIT_FAILED
    except typer.TyperException as error:
        if as_json:
            _fail("USAGE", error.format_message(), as_json=True)
        else:
            error.show()  # type: ignore[attr-defined]  # of the class behind every usage error
        return EXIT_USAGE
    except typer.Abort:
        say("penstock: not done")
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    return code if isinstance(code, int) else EXIT_OK


def _wants_json(arguments: Sequence[str]) -> bool:
    """Say whether JSON is wanted; asked before the line is parsed, as a bad line is an error to report too."""
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _fail(reason: str, message: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"reason": reason, "message": message, "metadata": {}}}), flush=True)
    else:
        say(f"penstock: {message}")


def main() -> None:
    """Entry point."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when the first channel is made; its news are not for users
    if completion.VARIABLE in os.environ:
        completion.enable()
    sys.exit(run(sys.argv[1:]))
