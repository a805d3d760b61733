"""The options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout, and nothing else there.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The data directory.  \\[default: BAKEHOUSE_HOME or ~/.bakehouse]", file_okay=False),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file.  \\[default: ./bakehouse.toml or HOME/bakehouse.toml]"),
]
Database = Annotated[
    str | None, typer.Option("--database", help="sqlite:////path or postgresql://...  \\[default: SQLite in HOME]")
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The server.  \\[default: INFERENCE_BASE_URL, else the server that runs on HOME]"),
]
Key = Annotated[
    str | None, typer.Option("--key", help="The API key.  \\[default: INFERENCE_API_KEY, else the first key of HOME]")
]
Owner = Annotated[str, typer.Option("--owner", help="Whose keys.")]
Interactive = Annotated[
    bool, typer.Option("--interactive", "-i", help="Send each line typed to the program, as a message.")
]
