"""What the broker reports about itself: events, metrics, logs and the audit log. They have names, and never a secret value."""
