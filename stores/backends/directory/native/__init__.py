"""
Many short files in one call of a compiled extension, which is optional (hatch_build.py).

    extension  the extension, if it was compiled and this kernel has openat2(2)
    reading    read many files
    writing    begin many uploads, and show many
    slices     many uploads a slice at a time, and those one by one that the extension leaves out
    _files     the extension itself: _files.c, with _reading.h, _writing.h and _checking.h

The Python code for one file is the reference. The extension makes the same system calls, and leaves out each file that
is not plain. The Python code then handles that file, and raises its error.
"""
