"""The executor of apps on this machine: how an instance is born, isolated, watched and ended."""
