"""`python -m pegbox.train RUNDIR`: learn from a run directory's data and leave the adapter there.

Knows the run directory and nothing else: no database, no API, no queue. One of the two places where torch
lives (`rundir.py` and `recipe.py` are torch-free, because the server writes and reads them).

Shapes in comments: R rows, L tokens a row (padded), N trained tokens, V vocabulary.
"""
