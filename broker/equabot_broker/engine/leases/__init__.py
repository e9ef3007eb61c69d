"""What agents hold: grants, streams, failover, and requests through the gateway."""
