"""Who may ask for what: projects, their API keys, how often they may ask, and the log of who changed what."""
