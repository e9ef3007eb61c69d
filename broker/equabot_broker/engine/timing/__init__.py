"""When: the clock, and what is due."""
