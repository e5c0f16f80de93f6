"""The program `penstock-chaos`, also as `python -m penstock.chaos`: says what is missing before it needs it."""

import sys
from importlib.util import find_spec

NEEDED = ("jinja2", "matplotlib", "requests", "toxiproxy")


def main() -> None:
    """Entry point."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(
            f"penstock-chaos: the chaos suite's dependencies are not installed ({', '.join(missing)}):"
            " pip install 'penstock[node,chaos]'"
        )
    from penstock.chaos import cli  # noqa: PLC0415  only now is everything there

    cli.main()


if __name__ == "__main__":
    main()
