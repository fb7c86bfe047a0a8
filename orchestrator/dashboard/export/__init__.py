"""
The list of jobs, and the failed objects of a job, as files: CSV for spreadsheets, JSON as in docs/json.md for programs.

Rows are read, written and forgotten a few at a time, so memory does not grow with the number of jobs or objects. A
file that cannot be completed ends with a broken connection, never as if it were whole.

    handlers         requests to files
    rows             the rows of the files, from the ledger and the source
    failures         failed objects, from a process of its own
    spreadsheet      CSV that no spreadsheet takes for formulas
"""
