"""
Where a text of a command line or of a program leads. Imports little: TAB waits for it.

    named_store the URL of a store, from its URL, its path or its name
    local_path  the absolute path that a relative one means
"""
