"""Sends back each message, until it gets ``end``."""

from inferlet import session

session.send("ready")
while (text := session.receive()) != "end":
    session.send(text)
