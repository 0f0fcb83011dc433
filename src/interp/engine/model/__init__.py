"""A loaded model: its handle, its state, its tokens, its hooks, and the store of its activations."""
