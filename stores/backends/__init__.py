"""One module or folder per kind of store. A new kind is a folder here and a line in `snapferry.stores.urls`."""
