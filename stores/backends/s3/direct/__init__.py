"""
The direct way to S3: requests sent without boto3.

    client   objects and listings
    http1    one HTTP/1.1 request over one connection
    sigv4    AWS Signature Version 4
    listing  parse a page of a listing
"""
