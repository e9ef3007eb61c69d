"""The control side of the gateway: the services that Envoy calls, and Envoy's configuration."""
