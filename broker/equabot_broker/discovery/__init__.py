"""From texts to profiles: which values are credentials, of which provider, and what is refused. No I/O."""
