"""What the commands that read one prompt or many share."""
