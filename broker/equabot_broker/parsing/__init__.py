"""Texts that other programs wrote, decoded with suspicion: JSON, and JSON Web Tokens. No I/O."""
