"""The environment of the broker's process, for the sources that read it."""

import os
from collections.abc import Mapping


def process_environment() -> Mapping[str, str]:
    """The environment of this process, as it is now."""
    return os.environ
