"""What a fine-tuning job is: how it is created, checked, run, followed and published.

Knows the queue, the store and the run directory; never torch, never HTTP.
"""
