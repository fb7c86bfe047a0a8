"""
What a command that reads stores prints.

    lines     lines and JSON lists of any length, on standard output
    activity  what a long read has done so far, on standard error
    doctor_report  results of the doctor's checks
"""
