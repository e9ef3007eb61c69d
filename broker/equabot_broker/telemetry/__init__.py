"""What the broker tells about itself: events, metrics, logs. Names travel here, values never."""
