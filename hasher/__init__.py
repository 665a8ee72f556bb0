"""Works out passwords' hashes for web, apart from it: a process with no network, no database and no secrets.

Standard library only, so that it starts at once and holds little memory.
"""
