"""How keys of the configuration are declared: YAML, readers, values and faults. Rooms declare their keys with it."""
