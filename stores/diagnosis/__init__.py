"""
What `doctor` checks at a store.

    findings    what a check found: a line for people, a name for programs
    diagnosable the interface of backends that know more about their store
    probe       checks of two stores before a copy
    round_trip  a few bytes written, read, listed and deleted
"""
