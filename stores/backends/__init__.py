"""One file per kind of store, and its parts beside it. A new kind is a file here and a line in `stores.urls`."""
