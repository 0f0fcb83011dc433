"""What testing a claim takes: its prompts and swaps, its controls, the verdict, and what is kept of it."""
