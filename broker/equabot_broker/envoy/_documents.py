"""Building blocks of Envoy's configuration."""

from typing import Any, Final

from equabot_broker.parsing.untrusted_json import Json

_TYPE: Final = "type.googleapis.com/envoy.extensions"


def named(name: str, kind: str, **config: Any) -> Json:
    """A named extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **config)}


def typed(kind: str, **config: Any) -> Json:
    """The typed configuration of an extension."""
    return {"@type": f"{_TYPE}.{kind}", **config}


def header(name: str, value: str) -> Json:
    """A header that is set, and replaces one with the same name."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
