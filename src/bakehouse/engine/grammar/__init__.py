"""Grammars that constrain generation: compiled once, stepped per token. llguidance does the work."""
