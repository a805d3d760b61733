"""A model's own chat template, rendered as transformers renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bakehouse.engine.errors import ModelRefused

#: What foreign template code may raise for a conversation that it cannot express.
_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant says; rendering ignores the marks."""

    tags = {"generation"}  # noqa: RUF012 (the base class says so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Compiled once. *date* fixes what templates call today; None is the clock's.

    *variables* are the tokenizer's named special tokens and what else the template is told.
    """

    def __init__(self, source: str, variables: Mapping[str, Any], date: datetime | None = None) -> None:
        """Raises `ModelRefused` for a template that is not Jinja."""
        self.source = source
        self._variables = dict(variables)
        self._date = date
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = self._now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelRefused(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], *, cue: bool, **variables: Any) -> str | None:
        """The text of *messages*, with the header of the assistant's turn if *cue*; None if the template refuses."""
        known = {**self._variables, **variables}
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=cue,
                **known,
            )
        except _FAILURES:
            return None

    def _now(self, form: str) -> str:
        return (self._date or datetime.now()).strftime(form)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no chat template wants."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
