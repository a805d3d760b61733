"""Structured logs: one line per event on stderr, for people in a terminal and as JSON for machines elsewhere.

Every line has an ``action``, one stable word to search for; ids are fields (``task``, ``app``, ``instance``).
What libraries log by the standard library comes out in the same form, with ``action`` set to ``library``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import Processor

from bakehouse.observe.redact import redact

LIBRARY = "library"
_PLAIN = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
_QUIET = ("httpx", "httpcore", "alembic", "asyncio", "uvicorn.error")


def configure_logging(log_format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process; may be repeated.

    *log_format* is ``auto`` (``console`` when *stream* is a terminal, else ``json``), ``json`` or ``console``.
    """
    target = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    people = log_format == "console" or (log_format == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_action,
    ]
    rendered: list[Processor] = _for_people(target) if people else _for_machines()
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    _take_over_the_standard_library(target, number, shared, rendered)


def _for_machines() -> list[Processor]:
    return [structlog.processors.format_exc_info, _hide, _json]


def _for_people(target: TextIO) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return [structlog.processors.format_exc_info, _hide, renderer]


def _with_action(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # A line that somebody wrote without its word can still be found, and the tests of the words find it first.
    event.setdefault("action", "unnamed")
    return event


def _library_action(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    extra = {} if record is None else {key: record.__dict__[key] for key in record.__dict__.keys() - _PLAIN}
    # Our own rooms that may not import structlog give their word and ids by `extra=`.
    event.update({"action": LIBRARY, "logger": "unknown" if record is None else record.name, **extra})
    return event


def _hide(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    hidden: dict[str, Any] = redact(event)
    return hidden


def _json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _take_over_the_standard_library(
    target: TextIO, level: int, shared: list[Processor], rendered: list[Processor]
) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library_action, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
