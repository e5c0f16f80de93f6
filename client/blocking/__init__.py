"""The blocking face: `Producer`, `Consumer`, `Admin` of `penstock.client` with the same names and no async.

Same core, on a background event loop (loop_thread). A Producer or Admin may be shared between threads, a Consumer not.
Callbacks run on the background thread: keep them short, and never wait for a client inside one. Ctrl-C interrupts every
wait, and loses no record that was read.
"""

from penstock.client.blocking.admin import Admin
from penstock.client.blocking.consumer import Consumer
from penstock.client.blocking.producer import Producer

__all__ = ["Admin", "Consumer", "Producer"]
