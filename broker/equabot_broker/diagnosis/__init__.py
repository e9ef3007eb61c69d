"""What an operator is shown of profiles: statuses and findings. No I/O."""
