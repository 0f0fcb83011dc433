"""What a command will take, before it starts: its work, the machine's rates, and what the two make."""
