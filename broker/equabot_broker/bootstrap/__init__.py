"""The composition root: configuration → a running broker. Everything is built here, and is stopped here.

Names are imported from its modules: a command that only looks does not load the servers (`serve`), which takes a second.
"""
