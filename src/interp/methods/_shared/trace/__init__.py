"""Attribution graphs as data, and how they are made, checked, exported and read back."""
