"""pegbox: a self-hosted fine-tuning server that speaks the OpenAI API."""

__version__ = "0.1.0"
