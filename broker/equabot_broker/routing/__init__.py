"""Requests through the gateway: which ones pass, with which headers, and as which path. No I/O."""
