"""Log batches: bounded in size, in order, with a counted gap where the middle is left out."""

from __future__ import annotations

import orjson

from bakehouse.dispatch.logs import LINE_CHARS, LogBuffer, texts

MIB = 1024 * 1024


def test_lines_come_back_in_order_and_with_their_level() -> None:
    buffer = LogBuffer(MIB)
    buffer.add("stdout", ["one", "two"])
    buffer.add("log", ["three"], "warning")
    (batch,) = buffer.take()
    assert texts(batch) == ["one", "two", "three"]
    assert orjson.loads(batch)[2] == {"stream": "log", "text": "three", "level": "warning"}
    assert buffer.take() == [] and buffer.waiting_bytes == 0


def test_batches_stay_below_64_kib_whatever_the_characters() -> None:
    buffer = LogBuffer(16 * MIB)
    for text in ("x" * 200, "é" * 200, "日" * 500, '"\\' * 100, "z" * (3 * LINE_CHARS + 1)):
        buffer.add("stdout", [text] * 500)
    batches = buffer.take()
    assert len(batches) > 1
    assert max(len(batch.encode()) for batch in batches) <= 64 * 1024


def test_a_long_line_is_split_and_nothing_is_lost() -> None:
    buffer = LogBuffer(16 * MIB)
    text = "".join(chr(97 + i % 26) for i in range(5 * LINE_CHARS + 7))
    buffer.add("stdout", [text])
    assert "".join(part for batch in buffer.take() for part in texts(batch)) == text


def test_over_the_limit_head_and_tail_stay_and_the_gap_is_counted() -> None:
    buffer = LogBuffer(40_000)
    lines = [f"line {i:06d}" for i in range(20_000)]
    kept: list[str] = []
    for start in range(0, len(lines), 100):
        buffer.add("stdout", lines[start : start + 100])
        kept += [text for batch in buffer.take() for text in texts(batch)]
    kept += [text for batch in buffer.finish() for text in texts(batch)]
    gap = next(i for i, text in enumerate(kept) if text.startswith("... "))
    assert kept[:gap] == lines[:gap] and kept[gap + 1 :] == lines[-(len(kept) - gap - 1) :]
    assert int(kept[gap].split()[1]) == len(lines) - (len(kept) - 1)
    assert sum(len(text) for text in kept) < 45_000
