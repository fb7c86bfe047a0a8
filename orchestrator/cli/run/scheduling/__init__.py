"""Bodies of the commands about what runs on a schedule, and who is told how it goes."""
