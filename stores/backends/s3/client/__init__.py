"""
Clients of boto3.

    clients      one client for each process and place
    boto         what is changed about a client: connections, pauses, parsing
    credentials  credentials that can be replaced while a process runs
"""
