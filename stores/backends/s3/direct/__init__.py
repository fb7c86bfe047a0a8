"""
The direct path to S3: requests sent without boto3. Only `client.clients` imports this folder; see `direct_path`.

    paths      find out where the direct path can be used; the implementation of `DirectPaths`
    template   the fixed parts of requests of one kind, taken from a request that boto3 signed
    requests   GET, PUT, HEAD and LIST, and parts of uploads; the implementation of `DirectPath`
    sigv4      AWS Signature Version 4
    http1      one HTTP/1.1 request over one connection
    in_flight  many requests in one thread, each over a connection of its own
    sending    send a long body, and notice an answer that comes early
    response   heads and bodies of answers
    listing    parse a page of a listing
"""
