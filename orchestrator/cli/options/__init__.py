"""
The options of commands, and how their values are read.

    declare       options and commands whose help pages have one form
    values        sizes, rates, counts, amounts, durations and queue names
    common        options of several commands
    copy          options of sync, plan and submit
    job_spec      the request that these describe
    snapshot_ids  the snapshots that --id, --ids-from and --all choose
    store_names   the store that a URL or a name of snapferry.toml means
    job           the argument JOB
"""
