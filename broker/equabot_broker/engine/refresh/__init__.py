"""Logins that are refreshed, and what stores remember of use."""
