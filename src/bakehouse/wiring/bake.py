"""``python -m bakehouse.wiring.bake SOURCE OUT CACHE LENT``: build one inferlet, in a process that can be confined."""

from __future__ import annotations

import sys
from pathlib import Path

PROBLEM = "problem: "
"""Begins the lines that say why a project cannot be built."""


def main() -> int:
    source, out, cache, lent = map(Path, sys.argv[1:])
    try:
        from bakehouse.inferlets.bakery import BadProject, BuildFailed, build
    except ModuleNotFoundError as error:
        print(f"{PROBLEM}{error.name} is not installed; pip install 'bakehouse[inferlets]' brings it")
        return 1
    try:
        built = build(source, out, cache=cache, lent=lent, say=lambda text: print(text, flush=True))
    except BadProject as error:
        for problem in error.problems:
            print(f"{PROBLEM}{problem}")
        return 1
    except BuildFailed as error:
        print(f"{error.detail}\n{PROBLEM}{error.detail.splitlines()[0]}")
        return 1
    origin = "found in the cache" if built.cached else f"built in {built.seconds:.1f} s"
    print(f"{built.size} bytes, {origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
