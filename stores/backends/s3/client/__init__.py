"""
Clients of S3: one of boto3, with the direct paths beside it, for each process and each set of settings.

    clients      the clients of this process
    session      make a client of boto3, and find its credentials
    boto         changes to a client of boto3: its connections, its pauses, its parsing
    credentials  credentials that can be replaced while a process runs
"""
