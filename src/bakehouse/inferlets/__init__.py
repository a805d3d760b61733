"""Inferlets: programs of users that run beside the model, in a sandbox. Start reading at `base` and `host`."""
