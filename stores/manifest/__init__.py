"""
The manifest: the text that lists a snapshot.

    entry      lines as values; rendering; the snapshot id
    parse      the verified manifest
    spool      the text while it is received and used
    syntax     lines one by one, and what is wrong with them
    lines      many lines at once, faster
    plain_lines  the same in Python; _lines.c is a C extension, which is optional (hatch_build.py)
    known_lines  manifests that share lines with earlier ones
    canonical  the canonical form: sorted, without comments
    tree_lines    lines of which a directory tree can be made, many at once
    tree_entries  entries of which a directory tree can be made
"""
