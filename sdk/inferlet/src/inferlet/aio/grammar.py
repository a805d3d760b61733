"""What `inferlet.grammar` has; here a matcher can be made while other tasks go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from inferlet import grammar
from inferlet.aio._waits import result
from inferlet.grammar import Grammar, Mask
from inferlet.model import Model, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Grammar", "Mask", "Matcher"]


class Matcher(grammar.Matcher):
    """`Matcher(grammar, tokenizer)` holds everything up until the grammar is compiled; `create` does not."""

    @classmethod
    async def create(cls, grammar_: Grammar, tokenizer: Tokenizer) -> Self:
        """A matcher at the start of the grammar."""
        return cls._of(
            tokenizer.model, int(await result(tokenizer.model._host, grammar.start(grammar_, tokenizer.model)))
        )

    @classmethod
    async def create_for_tools(cls, model: Model, tools: Iterable[str]) -> Self:
        """What `for_tools` gives."""
        return cls._of(model, int(await result(model._host, grammar.start_tools(model, tools))))
