"""Reads files that other users can write, by one set of rules for all rooms."""
