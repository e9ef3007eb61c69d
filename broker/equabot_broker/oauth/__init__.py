"""OAuth without I/O: logging in, refreshing, and exchanging a workload's identity."""
