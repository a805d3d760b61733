"""Chat formats: turns to ids, and generated ids to events."""
