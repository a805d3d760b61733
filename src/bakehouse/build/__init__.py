"""A package becomes a version: safe unpacking, an environment by uv, and a look at what the code offers."""
