"""The composition root: configuration → a running broker. Everything is built here, and everything is taken down here.

Names are imported from its modules: a command that only looks does not load the servers (`serving`), which takes a second.
"""
