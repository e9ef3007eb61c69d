"""Configuration: the document as written, how it is found and read, what it becomes."""
