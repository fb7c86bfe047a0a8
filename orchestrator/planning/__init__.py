"""
From a request to a plan.

    gather        each object once, and the snapshots that name it
    gather_numpy  the same in tables, for large jobs
    plan          objects -> batches and groups; pure
    plan_file     plans in files of this machine
    prepare       snapshots in order -> plan; computed again where it is not remembered
    estimate      what a job would copy and cost
    prices        the price table
"""
