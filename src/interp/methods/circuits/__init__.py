"""Commands that find and examine circuits."""
