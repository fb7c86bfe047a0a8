"""
The dashboard: what Flower cannot show. Pages about jobs, snapshots, failed objects and workers.

*read-only*: only GET and HEAD are answered, and nothing is changed, but for the forms of `control`, which are off by
default.
*hostile text*: paths, store errors and worker names may hold anything. The template engine itself escapes and shortens
every value that a template shows (`pages`), so no template can forget it.
*one loop, few threads*: views that read Redis run in threads beside the server's loop; stores are read in a process of
its own (`lookup`).

    server              the sockets, and how the server ends
    control/            forms that change jobs
    export/             lists as CSV and JSON
    access              access to the pages: host names, login, headers
    handlers            requests to views to pages
    form_tokens         tokens against forms of other sites
    guarded             what every handler shares
    views/              the values of each page; plain functions
    pages               templates to HTML
    preparation         what the first request would wait for
    zones               the time zone in which pages show times
    chart               throughput as an SVG path
    throughput_history  how fast jobs progress, now and before
    worker_roster       which workers are alive
    lookup              the paths and snapshots that need failed objects
"""
