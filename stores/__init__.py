"""
What a store is: objects and manifests under BLAKE3 addresses, in directories and buckets.

    errors          what can go wrong, one tree
    address         addresses, ids and the layout of keys
    hashing         BLAKE3 over bytes and streams
    requests        what a store charges for, by operation
    base            the interfaces: Backend (bytes under keys) and StreamStore (verified objects)
    snapshot_store  the StreamStore on any backend
    publishing      manifests after their objects, one or many
    existence       which of many objects or manifests a store holds, for few requests
    rate_limiter    what a store's requests and bytes wait for
    urls            scheme -> backend
    access          which stores a process may open, and with which credentials
    manifest/       parse, render, snapshot id; the canonical form
    bulk/           addresses and objects by the million; work on all cores
    network/        endpoints of S3 servers, and the IP addresses that connections may go to
    backends/       memory, directory, s3
    wrappers/       backends around backends
    diagnosis/      what `doctor` asks of a store
    runtime/        bounds of what is read, interruption, unexpected exceptions, dead processes
    text/           text from elsewhere made printable; numbers formatted

Nothing in here knows of Celery, Redis, the environment, or printing.
"""
