"""Features: dictionaries loaded, trained and looked at, and attribution graphs of them."""
