"""
Which of very many objects a store lacks.

    pieces   the question, in pieces, several of them at once
    digests  a piece of a large question, without a Python object for each address
"""
