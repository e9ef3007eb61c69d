"""Reads and writes files and entries of other programs: rules without I/O."""
