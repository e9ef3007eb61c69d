"""Generated stubs of the broker's API."""
