"""
How fast and how large snapferry is beside its peers: `snapdir`, rclone and s5cmd.

    cases     what is measured, and the goals
    data      sample stores
    commands  the command lines of the sides
    peer      a process that runs the `snapdir` package
    floor     the least that anybody must do to copy
    one_sided the same for verify, pull and push
    one_object the same for one large object
    direct    the copying alone, without a queue
    fleet     Redis, orchestrator and workers, as in production
    measure   a command's time, CPU and memory, over all of its processes
    rounds    all sides in turn, and the checks that they made the same
    servers   S3 servers, and Redis
    latency   a proxy that makes a server far away
    plots     the plots in docs
    report    ratios, the table, the page in docs

Run it with ``python -m benchmarks --help``.
"""
