"""The kinds of sources, one line each. Their order is the precedence in a configuration that names no sources."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from equabot_broker.sources.declaration import SourceKind
from equabot_broker.sources.dotenv import DOTENV
from equabot_broker.sources.env import ENV
from equabot_broker.sources.exec import EXEC
from equabot_broker.sources.kubernetes import KUBERNETES
from equabot_broker.sources.mounted import MOUNTED
from equabot_broker.sources.profile_store import PROFILE_STORE
from equabot_broker.sources.tool_login import TOOL_LOGINS


def by_name(*kinds: SourceKind) -> Mapping[str, SourceKind]:
    """The kinds by name. Raises ValueError for a duplicate name."""
    named = {kind.name: kind for kind in kinds}
    if len(named) != len(kinds):
        raise ValueError("two kinds of sources have the same name")
    return MappingProxyType(named)


KINDS: Final = by_name(
    KUBERNETES,
    MOUNTED,
    PROFILE_STORE,
    *TOOL_LOGINS,
    EXEC,
    DOTENV,
    ENV,
)
