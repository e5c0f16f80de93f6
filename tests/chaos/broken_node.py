"""`penstockd` with a deliberate bug of `make mutants` built in: python -m tests.chaos.broken_node MUTANT… -- start …"""

import sys
from contextlib import ExitStack

from penstock.node import main as penstockd
from tests.simulation.cluster.mutants import MUTANTS


def main() -> None:
    """Break the code, then run the server as ever."""
    mark = sys.argv.index("--")
    known = {mutant.name: mutant for mutant in MUTANTS}
    with ExitStack() as broken:
        for name in sys.argv[1:mark]:
            broken.enter_context(known[name].apply())
        sys.argv = ["penstockd", *sys.argv[mark + 1 :]]
        penstockd.main()


if __name__ == "__main__":
    main()
