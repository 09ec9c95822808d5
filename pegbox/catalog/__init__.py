"""Base models: what there is under which name, where its weights lie, how they get there.

Knows nothing of jobs or of the store: the catalogue is a folder of folders, one a model.
"""
