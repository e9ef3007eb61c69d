"""The broker's dependencies, for the build backend. In a clone, the client is the one in the clone.

An index may lack the client, or have another package of that name. A build from the sdist, which has no client, requires the
client by name, with the version of the broker. So does a build with EQUABOT_RELEASE=1.
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
        in_clone = client.is_dir() and os.environ.get("EQUABOT_RELEASE") != "1"
        required = f"equabot-client @ {client.as_uri()}" if in_clone else f"equabot-client=={metadata['version']}"
        metadata["dependencies"] = [required, *self.config["dependencies"]]
