"""The receipt of a job: what the trainer attests, held against the user's rows, the serving path and the engine.

Every check is a function of a Case that gives one Check. Knows the run directory, the data and the engine protocol;
never the store, never HTTP, no torch.
"""
