"""The executor of apps on this machine: how an instance is born, isolated, watched and ended."""

from bakehouse.launch.base import Environment, Hooks, LaunchError, LaunchSettings
from bakehouse.launch.local import LocalExecutor

__all__ = ["Environment", "Hooks", "LaunchError", "LaunchSettings", "LocalExecutor"]
