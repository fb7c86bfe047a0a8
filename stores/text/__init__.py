"""
Text for people.

    printable  text from elsewhere, made fit for a terminal, a log line and a bounded error
    format     numbers with their units
    similar    the word that somebody meant who misspelt it
"""
