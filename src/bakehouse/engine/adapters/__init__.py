"""LoRA adapters, several in one batch, and evolution strategies on their weights (zo)."""
