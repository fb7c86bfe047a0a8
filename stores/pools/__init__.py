"""
How a store is made of backends: one holds the objects, one the manifests. They may be one and the same.

    objects     verified objects on a backend
    manifests   verified manifests on a backend
    together    many short objects at once
    streaming   one object from a reader to an upload, verified
    server_copy one object that the server of both stores copies, verified
    in_parts    one object that several processes copy in parts, verified
    checking    whether an object is intact
    existence   which of many objects or manifests a backend holds, in few requests
    listing_memory  the same, for questions in no order that come in many calls
    quarantine  verified bytes in the place of wrong ones, which are kept
    publishing  manifests after their objects, one or many
    files       snapshots from and to trees of files
    accounting  how many requests operations take
"""
