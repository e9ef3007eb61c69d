"""Version 1 of the broker's API: written by `make proto`, never by hand."""
