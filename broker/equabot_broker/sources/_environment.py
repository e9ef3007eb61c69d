"""The environment of the broker's process, for the sources that read it."""

import os
from collections.abc import Mapping


def process_environment() -> Mapping[str, str]:
    """The present environment of this process."""
    return os.environ
