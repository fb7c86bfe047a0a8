"""
The manifest: the text that lists a snapshot.

    parse      entries, parse, render, snapshot id
    lines      the fast way to read many lines
    canonical  the canonical form: sorted, without comments
"""
