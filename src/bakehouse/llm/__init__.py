"""Tasks that run beside the models: so far inferlets, whose programs the node runs."""
