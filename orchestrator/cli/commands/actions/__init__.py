"""
The declarations of commands that begin jobs of other actions than to copy.

    heal  replace wrong and missing objects of a store
    pull  make a directory tree of a snapshot
    push  make a snapshot of a directory
    verify  look at the objects of a store
"""
