"""Root of the generated stubs: the directory is the proto package."""
