"""HTTP. ``common`` holds the manners that all dialects share; every other package here is one dialect."""
