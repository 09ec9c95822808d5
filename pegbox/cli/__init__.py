"""The command line: a client of the HTTP API like any other, plus `serve` and the base models on this machine."""
