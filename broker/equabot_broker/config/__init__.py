"""The configuration: its keys, how the file is found and read, and the checked result."""
