"""What the broker knows and decides, without doing anything: standard library only, synchronous, `now` comes in."""
