"""Who turns a step into numbers: torch, or a dummy without weights. One contract, in ``base``."""
