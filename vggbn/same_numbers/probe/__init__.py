"""What runs inside a source tree, of any commit: `python -m probe`, that tree in PYTHONPATH.

Nothing here imports the suite but `suite`, which names all that it takes from it.

    outline    a traced program as hashes: the same for the same arithmetic, however it is written
    pretend    programs that are not run: what they answer follows from their outlines and arguments
    suite      the suite's functions, by today's names and the older ones
"""
