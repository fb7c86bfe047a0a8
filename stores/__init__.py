"""
What a store is: objects and manifests under BLAKE3 addresses, in directories and buckets.

    errors          what can go wrong, one tree
    address         addresses, ids and the layout of keys
    manifest        parse, render, snapshot id
    lines           the fast way to read many lines of a manifest
    hashing         BLAKE3 over bytes and streams
    base            the interfaces: Backend (bytes under keys) and StreamStore (verified objects)
    requests        what a store charges for, by operation
    presence        which of many objects or manifests a store holds, for few requests
    publishing      manifests after their objects, one or many
    snapshot_store  the StreamStore on any backend
    urls            scheme -> backend
    access          which stores a process may open, and with which credentials
    endpoint        an S3 server's URL, in one spelling
    reach           which addresses a connection may go to
    words           numbers in words
    findings        what a check found: a line for people, a name for programs
    probe           what two stores are like, before a copy
    round_trip      the few bytes that are written for that, and taken away
    liveness        who a process is, and whether it is dead
    backends/       memory, file, s3

Nothing in here knows of Celery, Redis, the environment, or printing.
"""
