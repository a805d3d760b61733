"""Live events: publish, subscribe, latest. What must survive a crash is in ``store``; this room is only quick."""
