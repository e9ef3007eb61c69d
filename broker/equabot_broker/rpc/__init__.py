"""gRPC in: read, ask, answer."""
