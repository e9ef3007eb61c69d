"""The sources of credentials, one module per kind. No kind imports another."""
