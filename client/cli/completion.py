"""`penstock completion`: the script that makes a shell complete penstock's commands and options."""

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_inspect_parameters

VARIABLE = "_PENSTOCK_COMPLETE"
"""A shell's completion calls `penstock` with this set; typer answers it."""


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def enable() -> None:
    """Make typer know the shells (it does so when it adds its own two options, which this command replaces)."""
    get_completion_inspect_parameters()


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(help="The shell to write the script for.")]
) -> int:
    """Print the completion script of a shell.

    \b
    Example: penstock completion bash > ~/.local/share/bash-completion/completions/penstock
    """
    enable()
    os.environ[VARIABLE] = f"source_{shell.value}"
    try:
        context.find_root().command.main(args=[], prog_name="penstock")  # prints the script and ends
    finally:
        del os.environ[VARIABLE]
    return 0
