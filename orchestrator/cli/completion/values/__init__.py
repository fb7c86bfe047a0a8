"""
The values that TAB offers.

    configured  names in snapferry.toml
    jobs        jobs in Redis
    queues      queues in snapferry.toml and in Redis
    snapshots   snapshots of a store, and their names
    paths       paths in a snapshot

Each function takes the context of the command line so far, and the beginning of the word.
"""
