"""Commands about attention heads."""
