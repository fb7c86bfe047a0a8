"""
Connections to Redis: every client of this project, and of Celery, Flower and RedBeat in it, takes its pool from here.

*pool*: from the URL of the broker to a pool of connections: TCP, TLS, unix socket, Sentinel.
*sentinels*: which address is the primary's.
*credentials*: user and password that a file or a command supplies.
*retry*: how long a command is repeated while Redis is away.
"""
