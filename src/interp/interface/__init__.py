"""From a call to a technique: the registry of commands, a call's inputs, the session."""
