"""Text to ids and back. One contract, in ``base``."""
