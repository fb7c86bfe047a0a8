"""
Names of snapshots, kept in a store beside the format.

    name    what can be a name; its key; the text that is filed under it
    names   the names of a store
    lookup  the snapshot that a text means: an id, the first digits of one, a name, or `latest`
"""
