"""
Settings of a process.

    environment      the only reader of the environment
    config_file      `snapferry.toml`: stores and mirrors by their names
    durations        durations such as 90s
    store_table      a store in `snapferry.toml` with settings of its own
    toml_file        read a TOML file safely
    access           what this process allows the submitters of jobs
    directory_rules  what this process may do in directory stores
"""
