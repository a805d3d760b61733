"""What a program sends, on somebody's terminal."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import pytest

from bakehouse.cli.pie.terminal import Terminal, feed_lines
from bakehouse.inferlets.errors import Refused

ORDERS = "a\x1b]52;c;aGFybQ==\x07b\x9b2Jc\x7f\td\n"


class Screen(io.TextIOWrapper):
    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8")

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return self.bytes.getvalue().decode()


def test_a_program_gives_a_terminal_no_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    terminal = Terminal(tmp_path)
    terminal.output("stdout", ORDERS)
    terminal.message("\x1b[31mred")
    assert screen.text() == "a␛]52;c;aGFybQ==␇b␡2Jc␡\td\n[Message] ␛[31mred\n"


def test_what_goes_elsewhere_is_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(tmp_path).output("stdout", ORDERS)
    assert capsys.readouterr().out == ORDERS


def test_a_line_that_can_never_be_sent_is_told_and_the_next_ones_are_sent(capsys: pytest.CaptureFixture[str]) -> None:
    over, sent, full = threading.Event(), list[str](), ["queue", "memory"]

    def send(line: str) -> None:
        if line == "long":
            raise Refused("message: a message may have at most 2 bytes", field="message")
        if full:
            raise Refused("try again", field=full.pop())
        sent.append(line)
        if line == "last":
            over.set()

    feed_lines(io.StringIO("first\nlong\nlast\n"), send, over)
    assert over.wait(10)
    assert sent == ["first", "last"]
    assert capsys.readouterr().err == "a line was not sent: message: a message may have at most 2 bytes\n"
