"""
A store in a directory.

    kind             the `StoreKind` of ``file://``
    backend          the Backend
    store_directory  making and opening the directory; its errors
    streams          bytes out of a file, and into a temporary file
    clone            copy between open files without moving bytes
    listing          the keys below a directory, in order
    sizes            the lengths of many files, on all cores
    sync             wait for the disk
    errors           errors of the operating system -> errors of stores
    diagnosis        file system, free space, permissions
    paths/           opening files beneath the root, and the links that are followed
"""
