"""From a waiting task to its end: claim, hand to the executor of its kind, relay what happens, finish.

Who is next is plain data (``backlog``).
"""
