"""
Addresses and objects by the million.

    address_set  a set of addresses of any size
    tables       sorted tables of addresses and objects
    forked       work shared among the cores of this machine
"""
