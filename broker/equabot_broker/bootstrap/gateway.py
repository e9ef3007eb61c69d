"""What the broker writes for Envoy: its bootstrap once, and its routes whenever the configuration changes them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from equabot_broker.config.gateway import gateway_of
from equabot_broker.config.model import Config
from equabot_broker.domain.errors import CannotStart
from equabot_broker.envoy.bootstrap_config import Gateway, as_yaml, bootstrap_config, routes_config
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.envoy.process import fitting
from equabot_broker.storage.replacing import replace_file

_BOOTSTRAP: Final = "envoy.yaml"
_ROUTES: Final = "envoy-routes.yaml"


class GatewayFiles:
    """Both are next to the control socket. Envoy notices that the routes are replaced; what is under way goes on. Blocking."""

    def __init__(self) -> None:
        self._written: Mapping[str, Any] | None = None

    def write(self, config: Config) -> Gateway:
        """Writes both, and returns what they are made of. Raises CannotStart."""
        gateway = _gateway(config)
        self.write_routes(config)
        _write(gateway, _BOOTSTRAP, bootstrap_config(gateway))
        return gateway

    def write_routes(self, config: Config) -> None:
        """Writes the routes, where they have changed; nothing without a gateway. Raises CannotStart."""
        if config.gateway.mode is GatewayMode.OFF:
            return
        gateway = _gateway(config)
        routes = routes_config(gateway)
        if routes != self._written:
            _write(gateway, _ROUTES, routes)
            self._written = routes


def _gateway(config: Config) -> Gateway:
    gateway = gateway_of(config)
    if config.gateway.mode is GatewayMode.CHILD:
        gateway = replace(gateway, options=fitting(gateway.options))
    return replace(gateway, routes=gateway.control.with_name(_ROUTES))


def _write(gateway: Gateway, name: str, document: Mapping[str, Any]) -> None:
    file = gateway.control.with_name(name)
    try:
        replace_file(file, as_yaml(dict(document)).encode(), mode=0o644)
    except OSError as error:
        raise CannotStart(f"cannot write the gateway's configuration to {file}: {error.strerror}") from None
