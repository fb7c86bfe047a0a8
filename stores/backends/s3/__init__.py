"""
A store in a bucket of Amazon S3, or of another server with its protocol.

    kind         the scheme ``s3``
    url          parse an ``s3://`` URL
    backend      the Backend
    bucket       one bucket: requests sent, counted and rate-limited; errors translated
    objects/     read, write, confirm and delete objects
    listing      pages of a listing, and checks on them
    diagnosis/   what `doctor` asks of a bucket
    direct_path  the seam to the direct path
    direct/      the direct path: requests sent without boto3
    client/      clients of boto3 and their credentials
    http/        what both paths have in common
    errors       errors of boto3 -> errors of stores
    redaction    keys and tokens kept out of errors
    options      what a URL or a table of `snapferry.toml` may set
    features     what a process learns about a server
    sizes        limits of S3, sizes of parts and ranges
    deadline     run something for a limited time
"""
