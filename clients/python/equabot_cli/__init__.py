"""The command line of an agent, and what the command line of the server has in common with it."""
