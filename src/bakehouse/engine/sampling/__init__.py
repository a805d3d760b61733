"""From logits to tokens: a numpy reference that is the oracle, and torch, vectorised over the batch."""
