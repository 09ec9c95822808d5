"""Text out of a base model with adapters. Tokens in, tokens out: who asked, and in which words, is not known here.

`torch.py` runs in a child process (`host.py`); `hosted.py` is the same protocol on the server's side of the
pipe; `pool.py` decides which bases have a process. One of the two places where torch lives.
"""
