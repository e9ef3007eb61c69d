"""Pieces of which Envoy's configuration is made."""

from typing import Any, Final

from equabot_broker.domain.untrusted_json import Json

_TYPE: Final = "type.googleapis.com/envoy.extensions"


def named(name: str, kind: str, **config: Any) -> Json:
    """An extension, configured."""
    return {"name": name, "typed_config": typed(kind, **config)}


def typed(kind: str, **config: Any) -> Json:
    """The configuration of an extension of that kind."""
    return {"@type": f"{_TYPE}.{kind}", **config}


def header(name: str, value: str) -> Json:
    """A header that is set, whatever was there."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
