"""Client of the Equabot credential broker."""
