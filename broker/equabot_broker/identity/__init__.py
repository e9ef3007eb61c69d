"""Identifies callers."""
