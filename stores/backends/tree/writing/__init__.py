"""
Make a directory tree as a snapshot lists it: beneath its root, whatever the manifest says and whatever is there.

    target     the tree: what is right in it, files on their way into it
    folders    its directories: opening and making them, and what is in their place
    upload     a file on its way
    settling   the end: directories, permissions, and what the snapshot does not have
    removal    remove a directory with all that is in it
    temporary  names of temporary files, and those of dead writers
    modes      permissions of what is open
    opened     the tree of a store that was opened by its URL
    folding    whether two names can be one file
"""
