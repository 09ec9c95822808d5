"""The quality checks: what is wrong with good rows taken together. One file a family of codes.

A check sees every row once, in order, and then says what it found. It keeps little: counters, sketches, columns on
disk. It knows nothing of the store, the web, or how findings are shown.
"""
