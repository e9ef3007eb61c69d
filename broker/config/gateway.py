"""What the configuration makes of the gateway."""

from broker.config.model import Config
from broker.envoy.bootstrap_config import Gateway
from broker.envoy.routes import upstreams
from broker.identity.agent_socket import plan
from broker.providers.catalog import VENDOR_URLS


def gateway_of(config: Config) -> Gateway:
    """The gateway in front of the configured providers. Nothing is looked at but the configuration."""
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
