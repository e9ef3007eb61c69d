"""Derives the gateway from the configuration."""

from equabot_broker.config.model import Config
from equabot_broker.envoy.bootstrap_config import Gateway
from equabot_broker.envoy.routes import upstreams
from equabot_broker.identity.agent_socket import plan
from equabot_broker.providers.catalog import VENDOR_URLS


def gateway_of(config: Config) -> Gateway:
    """The gateway in front of the configured providers. The function reads no file and no environment."""
    listen = config.listen
    planned = plan(
        config.run_dir, config.policies.agents, admin=listen.admin, control=listen.control, agent_paths=listen.agents
    )
    return Gateway(
        host=listen.gateway.host,
        port=listen.gateway.port,
        control=planned.control,
        upstreams=upstreams(config.catalog.providers.values(), vendor_urls=VENDOR_URLS),
        options=config.gateway,
    )
