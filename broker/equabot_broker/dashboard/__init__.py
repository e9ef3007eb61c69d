"""A read-only page about a running broker, served on loopback by the process of `equabot dashboard` (ADR 48)."""
