"""
What the direct path and boto3's path have in common: sockets, limits on answers, and the counting of attempts.

    sockets       sockets that check for interruption while they wait
    resolver      look up names without blocking for long
    interim       answers with a status of 1xx
    bounded_body  bodies of a bounded length
    xml_limits    limits on an XML text, checked before it is parsed
    attempts      count each attempt of a request; set the outcome of boto3's first attempt
"""
