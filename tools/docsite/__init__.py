"""The documentation site: pages made from what is declared, with pictures of what examples give."""
