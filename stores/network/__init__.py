"""
Servers that a store may connect to.

    endpoint   the endpoint of an S3 server, in one spelling
    ip_policy  which IP addresses a connection may go to
"""
