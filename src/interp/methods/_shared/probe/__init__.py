"""What a probe is fitted to, and how."""
