"""Rules: small programs over tokens, positions and context that say where a feature is active."""
