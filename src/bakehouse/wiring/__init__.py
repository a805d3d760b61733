"""Where the concrete parts meet: the only room, beside ``cli``, that knows every variant."""

from bakehouse.wiring.serve import serve

__all__ = ["serve"]
