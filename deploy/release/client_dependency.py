"""The broker's dependencies, for the build backend: in a clone the client is the one next to the broker.

An index may not have the client, or may have another one under its name. A build from the sdist, which has no client next to
it, and one with EQUABOT_RELEASE=1 require the client of the broker's own version by name.
"""

import os
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ClientDependency(MetadataHookInterface):
    """Fills in `project.dependencies`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the client to the dependencies that pyproject.toml lists for this hook."""
        client = Path(self.root) / "clients" / "python"
        beside = client.is_dir() and os.environ.get("EQUABOT_RELEASE") != "1"
        required = f"equabot-client @ {client.as_uri()}" if beside else f"equabot-client=={metadata['version']}"
        metadata["dependencies"] = [required, *self.config["dependencies"]]
