"""
From the request for a job to its plan.

    prepare       choose and order the snapshots, read their manifests, plan; recall a plan
    snapshots     the snapshots of a job, and what was found of each
    planner       manifests -> plan
    plan          the plan: batches, and groups of snapshots
    batches       objects -> batches
    gather        the interface: each distinct object once, group by group
    gather_sets   the same in sets and dictionaries
    gather_numpy  the same in tables, for large jobs
    trees/        plans of jobs with a tree of files
    plan_file     plans in files of this machine
    estimates/    what a job would do and cost
    prices        the price table
    surplus       the manifests that a mirror deletes
"""
