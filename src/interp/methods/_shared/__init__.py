"""What several techniques use; no commands."""
