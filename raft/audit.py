"""Refuses to run on any other pysyncobj than the audited one.

RaftMachine overrides private methods of the library and relies on others as they are. So the sources of all that it
touches are pinned by digest; the version number alone would let a patched build pass.
"""

import functools
import hashlib
from importlib import metadata, resources

from penstock.raft.errors import UnauditedLibraryError

VERSION = "0.3.17"
FILES = ("config.py", "fast_queue.py", "monotonic.py", "node.py", "serializer.py", "syncobj.py", "transport.py")
DIGEST = "aa5dbf2914e238c9ce1db37a5cab2f34fc18d536d197939b63722480172b5fd0"


def digest() -> str:
    """Return the digest of the installed library's sources, independent of the ends of lines."""
    total = hashlib.sha256()
    for name in FILES:
        source = (resources.files("pysyncobj") / name).read_text(encoding="utf-8")
        total.update(f"{name}\n{source}\n".encode())
    return total.hexdigest()


@functools.cache
def check() -> None:
    """Raise UnauditedLibraryError unless the installed library is the audited one."""
    installed = metadata.version("pysyncobj")
    if installed != VERSION:
        message = (
            f"pysyncobj {installed} is installed; consensus runs on {VERSION} only: pip install pysyncobj=={VERSION}"
        )
        raise UnauditedLibraryError(message)
    if digest() != DIGEST:
        message = f"the installed pysyncobj {VERSION} is not the released one: reinstall it from the package index"
        raise UnauditedLibraryError(message)
