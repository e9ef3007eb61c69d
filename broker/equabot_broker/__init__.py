"""Equabot broker: leases on credentials for AI agents in containers."""
