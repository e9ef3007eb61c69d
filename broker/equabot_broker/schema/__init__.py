"""How keys of the configuration are declared: YAML, readers, values and faults. Other packages declare their keys with it."""
