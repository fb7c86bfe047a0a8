"""
``tree://``: a directory tree, from which a snapshot is made, or which becomes what a snapshot lists.

    kind        the kind of store
    backend     the files of a tree by their paths
    place       opening files and directories of a tree, with or without following links
    reader      the bytes of a file, which must not change meanwhile
    reading     reads a file once, for its digest and for its bytes
    objects     files as objects, for the store that receives them
    only_reads  what both refuse, because nothing is written to them
    exclude     patterns of paths that are left out
    walk        what is in a tree, in the order of a manifest
    listing     the result of a walk, in compact form
    manifest    the manifest of a listing, once the digests of its files are known
    snapshot    all of it for one process: read a tree and return its manifest
    writing/    make a tree as a snapshot lists it
"""
