"""Shared manners of all dialects: errors, envelopes, authentication, lists, the outermost layer."""
