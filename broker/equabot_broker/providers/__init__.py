"""Facts about providers, as data."""

from equabot_broker.providers.catalog import BUILT_IN, PROVIDERS
from equabot_broker.providers.declaring import list_names

__all__ = ["BUILT_IN", "PROVIDERS", "list_names"]
