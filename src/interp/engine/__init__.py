"""Models, their activations and their forwards. torch lives here; nothing here knows of notebooks or pictures."""
