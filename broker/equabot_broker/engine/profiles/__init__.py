"""Which profiles exist, what each is worth now, and which one serves a request."""
