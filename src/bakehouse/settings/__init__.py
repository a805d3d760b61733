"""The settings of a server: read once, frozen, strict."""

from bakehouse.settings.load import SettingsError, load_settings
from bakehouse.settings.model import Settings, is_loopback

__all__ = ["Settings", "SettingsError", "is_loopback", "load_settings"]
