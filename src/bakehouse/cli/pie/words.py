"""Commands that take a program's own arguments, which come after ``--``."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import takewhile

import typer
from typer.core import TyperCommand

from bakehouse.cli.failures import Failure


class WithArguments(TyperCommand):
    """Says what was forgotten where an option is not ours."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Raises Failure."""
        known = {name for option in self.get_params(ctx) for name in (*option.opts, *option.secondary_opts)}
        for word in takewhile(lambda word: word != "--", args):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known:
                close = get_close_matches(name, sorted(known), 1)
                meant = f"; is {close[0]} meant?" if close else ""
                raise Failure(
                    f"there is no option {name}{meant}",
                    hint=f"Arguments of the program come after --, such as -- {name} VALUE",
                )
        return super().parse_args(ctx, args)
