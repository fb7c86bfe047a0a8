"""
Objects in a bucket: how they are read, written, confirmed and deleted.

    small      one request each: GET, PUT, HEAD, DELETE, and listings
    many       many short objects in flight in one thread
    ranges     read an object, a large one in ranges, several at the same time
    confirm    write an object and prove that the bucket holds the bytes that were sent
    detect     find out how a server confirms writes
    multipart  write a stream: by one request, or by a multipart upload
    copying    let the server copy an object, or a part
    server_side  objects from another store of the same server
    probes     what probes share
    leftovers  abort multipart uploads of dead processes
"""
