"""
The dashboard: what Flower cannot show. Small pages about jobs, snapshots, failures and workers.

*reads only*: nothing but GET and HEAD is answered, and nothing is changed.
*hostile text*: paths, store errors and worker names may hold anything. Every
value that a template shows is made visible, cut and escaped by the template
engine's own step (`pages`), so no template can forget it.
*one loop, few threads*: what asks Redis runs beside the server's loop; what
reads stores runs in a process of its own (`lookup`).

    server     the sockets, and how it ends
    access     who may look: host names, password, headers
    handlers   requests -> views -> pages
    views      what a page shows; plain functions
    pages      templates -> HTML
    speed_history  how fast jobs get on
    worker_roster  which workers are alive
    lookup     the paths and snapshots that failed objects hold up
"""
