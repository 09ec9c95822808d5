"""A better file from a training file: rows left out or changed (clean.py), or shared out to train and validate on
(split.py). Every row is accounted for (changes.py)."""
