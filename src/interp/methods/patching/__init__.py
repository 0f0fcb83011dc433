"""Commands that change activations and measure what follows."""
