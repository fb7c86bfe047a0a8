"""
What `doctor` asks of a store.

    findings    what a check found: a line for people, a name for programs
    probe       two stores before a copy
    round_trip  a few bytes written, read, listed and deleted
"""
