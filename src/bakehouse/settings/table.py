"""The settings as a table for the documentation, made from the fields themselves."""

from __future__ import annotations

from typing import Any

from bakehouse.settings.load import PREFIX
from bakehouse.settings.model import Settings

BEGIN = "<!-- settings: begin -->"
END = "<!-- settings: end -->"
_STEPS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def settings_table() -> str:
    """Markdown: a row per setting with its default, its variable and what it does."""
    rows = ["| Setting | Variable | Default | Meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = _shown(field.default, str(extra.get("unit") or ""))
        rows.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """*page* with the part between the markers replaced by the table. Raises ValueError without markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


def _shown(value: Any, unit: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == {}:
        return "none"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if unit == "bytes":
        return next((f"`{value // size}{name}`" for name, size in _STEPS if value % size == 0), f"`{value}`")
    return f"`{value:g}`{' ' + unit if unit else ''}" if isinstance(value, int | float) else f"`{value}`"
