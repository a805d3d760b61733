"""The published clients, unmodified and in environments of their own, against a real server."""
