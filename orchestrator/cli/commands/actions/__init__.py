"""
The declarations of commands that begin jobs of other actions than to copy.

    heal  replace wrong and missing objects of a store
    push  make a snapshot of a directory
"""
