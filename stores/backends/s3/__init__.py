"""
A store in a bucket of Amazon S3, or of another server with its protocol.

    backend        the Backend
    multipart      a stream becomes an object, in one request or in parts
    ranges         a large object is read in ranges, several at once
    confirm        prove that a bucket holds the bytes that were sent
    leftovers      abort multipart uploads that will not be finished
    listing_check  checks on the pages of a listing
    options        what a URL or a table of `snapferry.toml` may set
    errors         errors of boto3 -> errors of stores
    redaction      keys and tokens kept out of errors
    diagnosis      rights, conditional writes, versions, leftovers, the server's clock
    client/        clients of boto3 and their credentials
    direct/        requests sent without boto3
    http/          what both ways share
"""
