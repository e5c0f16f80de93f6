"""Structured logs on standard error: one line an event, logfmt (time, level, node, logger, message)."""

import logging
import sys
import time


class _Formatter(logging.Formatter):
    def __init__(self, node_id: int) -> None:
        super().__init__(
            f'time=%(asctime)s.%(msecs)03dZ level=%(levelname)s node={node_id} logger=%(name)s msg="%(message)s"',
            datefmt="%Y-%m-%dT%H:%M:%S",
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  the base's name
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class's name
        record.message = record.message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return super().formatMessage(record)


def configure_logging(level: str, node_id: int) -> None:
    """Send the log of the whole process to standard error at `level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(node_id))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
