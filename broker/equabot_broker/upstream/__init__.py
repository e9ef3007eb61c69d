"""HTTP out."""
