"""Exceptions in words: a short line for people, a code for programs, the app's part of the traceback for the logs."""

from __future__ import annotations

import traceback
from pathlib import Path

from . import messages
from .convert import CallError
from .loader import LoadError

MAX_MESSAGE = 500
MAX_TRACEBACK = 64 * 1024
_FOLDER = Path(__file__).parent


def detail(error: BaseException) -> messages.Message:
    """What `messages.error` and `messages.failed` carry. Never raises, whatever the exception's own methods do."""
    kind = type(error).__name__
    if isinstance(error, CallError):
        text = "" if error.code == "invalid_input" else _traceback(error.__cause__)
        return messages.error_detail(error.code, kind, _short(error), text, error.errors)
    if isinstance(error, LoadError):
        return messages.error_detail("app_error", kind, _short(error), _traceback(error.__cause__))
    if isinstance(error, SystemExit):
        return messages.error_detail("exit", kind, f"the app called sys.exit({error.code!r})", _traceback(error))
    hint = "; is it in requirements.txt?" if isinstance(error, ModuleNotFoundError) else ""
    return messages.error_detail("app_error", kind, (_named(error) + hint)[:MAX_MESSAGE], _traceback(error))


def _short(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception as broken:
        return f"(its text cannot be shown: {type(broken).__name__})"
    return lines[0][:MAX_MESSAGE] if lines else ""


def _named(error: BaseException) -> str:
    text = _short(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: BaseException | None) -> str:
    if error is None:
        return ""
    frames = error.__traceback__
    while frames is not None and Path(frames.tb_frame.f_code.co_filename).parent == _FOLDER:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n... {len(text) - MAX_TRACEBACK} characters left out ...\n{text[-half:]}"
