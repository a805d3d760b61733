"""The nouns of the platform and their rules. Standard library and pydantic only; no input or output."""
