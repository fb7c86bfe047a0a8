"""
What `doctor` asks of a bucket before a copy.

    settings      versions, locks, lifecycle rules, the server's clock: questions that write nothing
    permissions   write, read, list and delete a probe; make and abort a multipart upload

boto3 sends all these requests, because they are rare and unusual.
"""
