"""Files and entries of other programs, read and written: rules without I/O."""
