"""Runs one app in a process of its own. Started by path, standard library only, Python 3.9 or newer."""
