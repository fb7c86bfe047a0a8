"""
What a store is: objects and manifests under BLAKE3 addresses, in directories and buckets.

    errors          what can go wrong, one tree
    address         addresses, ids and the layout of keys
    hashing         BLAKE3 over bytes and streams
    requests        what a provider charges for, by operation
    streams         readers and uploads
    backend         the interface of a backend: bytes under keys
    features        what only some backends can do
    stream_store    the interface of a store: verified objects and manifests
    snapshot_store  the StreamStore on any backend
    rate_limiter    the limits that requests and bytes wait for
    access          which stores a process may open, and with which credentials
    opening         open stores
    pools/          how a store is made of backends: objects, manifests, existence, publishing
    urls/           URLs, kinds of stores, and the registry of kinds
    manifest/       entries, parsing, the canonical form
    bulk/           addresses and objects by the million; work on all cores
    network/        endpoints of S3 servers, and the IP addresses that connections may go to
    backends/       memory, directory, s3
    wrappers/       backends around backends
    diagnosis/      what `doctor` checks at a store
    inspection/     what snapshots hold, how they differ, and what no snapshot holds
    runtime/        bounds of what is read, interruption, unexpected exceptions, dead processes
    text/           foreign text made printable; numbers formatted

Nothing here uses Celery, Redis or the environment, and nothing prints.
"""
