"""
Copies between two stores of one server, which the server makes by itself.

    probe   find out what the server can do
    parts   the parts of a large object
    upload  an object that the server copies while it is read here
"""

from .upload import server_copy

__all__ = ["server_copy"]
