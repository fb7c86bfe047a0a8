"""
The values that TAB offers.

    configured  names in snapferry.toml
    jobs        jobs in Redis
    snapshots   snapshots of a store, and their names

Each function takes the context of the command line so far, and the beginning of the word.
"""
