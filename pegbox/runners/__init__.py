"""Where a run executes: here, and later on a cluster. Holds no state: a handle is a string that others keep."""
