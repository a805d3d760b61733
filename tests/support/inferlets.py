"""What tests of inferlets keep between runs: a build takes seconds, compiling one too."""

from __future__ import annotations

from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "inferlets"
#: Below a data directory: where commands keep what, and where a server does.
_PLACES = {"inferlets/compiled": "compiled", "inferlets/bakery": "bakery", "cache/bakery": "bakery"}


def keep_builds(home: Path) -> Path:
    """Have the data directory *home*, of which none of this is there yet, share what earlier tests have built."""
    for place, kept in _PLACES.items():
        (CACHE / kept).mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        if not (home / place).exists():
            (home / place).symlink_to(CACHE / kept)
    return home
