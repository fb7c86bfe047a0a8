"""One file per kind of store. A new kind is a file here and a line in `stores.urls`."""
