"""
The options of commands, as help pages, completion and errors need them. They import no library but click.

    declare   options and commands whose help pages have one form
    misspelt  what is meant by a command that does not exist
    values    sizes, rates, counts, amounts, durations and queue names
    common    options of several commands
    job       options of every command that begins a job
    copy      options of sync, plan and submit
    places    stores that are arguments or options
"""
