"""What the pictures of all results are made of: colours, cells, text, bars, curves, the page around them."""
