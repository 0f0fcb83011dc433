"""Where shards of a sweep run: in this process, or in worker processes; each driver is a file with one protocol."""
