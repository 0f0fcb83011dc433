"""What patching techniques share: activations, estimates, recovery."""
