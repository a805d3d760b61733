"""The LLM engine: contexts with a forkable, paged KV cache, one batch per step, a program in charge of each token.

Outsiders import ``engine.handle``, ``engine.params`` and ``engine.wire`` only. ``plan`` decides and imports no torch;
``runner`` obeys; ``loop`` is where they meet.
"""
