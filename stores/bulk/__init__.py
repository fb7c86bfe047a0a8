"""
Addresses and objects by the million.

    address_set  a set of addresses of any size
    tables       sorted tables of addresses and objects
    union        distinct objects with their first sizes, any number; union_table is its table
    forked       work shared among the cores of this machine
"""
