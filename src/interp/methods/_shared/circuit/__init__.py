"""A circuit as data: its file, its report, where it came from."""
