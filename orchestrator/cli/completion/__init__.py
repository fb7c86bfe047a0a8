"""
What TAB offers in bash, zsh and fish.

    shells      the words of the command line, and the lines that a shell script reads
    bounded     an answer from a child process, in limited time
    parameters  which values a parameter takes
    values/     those values: names in snapferry.toml, jobs, snapshots
    scripts/    what `snapferry completion` prints

*bounded*: an answer comes from a child process that is killed with all that it began when its time is over.
*silent*: a question that cannot be answered has no answers. Nothing is printed on standard error, nothing is written.
*complete or nothing*: a shell inserts what all answers have in common, so a list that was cut is not offered.
*nothing is trusted*: jobs, names and stores may be hostile. Only values of harmless characters reach a shell.
"""
