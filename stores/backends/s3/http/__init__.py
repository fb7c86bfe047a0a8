"""
What the direct way and boto3's way to S3 share.

    sockets       sockets that check for interruption while they wait
    interim       answers with a status of 1xx
    bounded_body  bodies of a bounded length
    attempts      requests counted attempt by attempt
"""
