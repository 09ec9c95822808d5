"""From uploaded bytes to token examples: lines, strict JSON, formats, checks, rendering, counts.

No torch, no store, no web: the validator, the trainer, the engine's front and the command line all call it.
"""
