"""
How fast and how large snapferry is beside the real `snapdir`.

    cases     what is measured, and the goals
    data      sample stores
    commands  the command lines of both sides
    peer      the other side: a process that runs the `snapdir` package
    measure   a command's time, CPU and memory, over all of its processes
    pairs     both sides in turn, and the check that both made the same
    servers   an S3 server for the S3 cases
    report    ratios, the table, the page in docs

Run it with ``python -m benchmarks --help``.
"""
