"""Where credentials come from. One module a kind; kinds do not know each other."""
