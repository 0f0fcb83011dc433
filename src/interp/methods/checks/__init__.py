"""Commands that try tasks and methods out."""
