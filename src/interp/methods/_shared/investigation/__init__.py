"""An investigation: a corrupted twin, the steps, and the account that their numbers carry."""
