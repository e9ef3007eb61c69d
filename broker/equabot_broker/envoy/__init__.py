"""The gateway's control side: what Envoy asks of the broker, and what it is configured with."""
