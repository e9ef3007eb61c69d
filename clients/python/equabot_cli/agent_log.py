"""The log of an agent's command: lines on standard error, without credentials."""

import logging
import os
import sys
from argparse import Namespace
from datetime import datetime
from typing import Final

from equabot_cli.masking import masked

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = masked(f"{at} {record.levelname.lower():<8} {record.name}: {record.getMessage()}")
        return line if line.isprintable() else "".join(c if c.isprintable() else "�" for c in line)


def configure_log(args: Namespace) -> None:
    """Sends the log of the client library to standard error: warnings, and more for each `--verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("equabot_client").setLevel(_LEVELS[min(args.verbose, len(_LEVELS) - 1)])
    # gRPC's own tracing prints headers and bodies to the standard error stream, without any filter.
    os.unsetenv("GRPC_TRACE")
    os.unsetenv("GRPC_VERBOSITY")
