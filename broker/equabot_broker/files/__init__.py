"""Files that others write: read with suspicion, in one way, by every room that reads one."""
