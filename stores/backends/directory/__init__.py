"""
A store in a directory.

    backend    the Backend
    streams    bytes out of a file, and into a temporary file until it gets its name
    clone      copy between open files without moving bytes
    listing    the keys below a directory, in order
    sizes      the lengths of many files, on all cores
    sync       wait for the disk
    errors     errors of the operating system -> errors of stores
    diagnosis  file system, room, rights
    paths/     what is opened below the root, and which links are followed
"""
