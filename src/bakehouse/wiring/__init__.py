"""Where the concrete parts meet: the only room, beside ``cli``, that knows every variant.

It imports nothing by itself: `wiring.node` runs in a process that has no use for the server.
"""
