"""The gRPC server: reads requests, calls the engine, and converts the answers."""
