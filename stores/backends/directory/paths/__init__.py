"""
What a directory store opens: only what is below its root.

    beneath    open a path below a directory, without following links
    root       the open root of a store, and the directories below it
    root_path  the path from ``/`` to the root
    links      links in the place of shards, where the operator allows them
    rules      what the operator allows
"""
