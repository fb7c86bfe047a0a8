"""
What a running command makes of its options.

    job           the job that JOB means
    job_spec      the request that the options of sync, plan and submit describe
    opened_store  a store that a command reads in its own process
    show          how progress and result are shown
    snapshot_ids  the snapshots that --id, --ids-from, --all and arguments choose
    store_names   the store that a URL or a name of snapferry.toml means
"""
