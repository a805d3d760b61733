"""Calls in the text between their markers."""

from __future__ import annotations

import pytest

from bakehouse.engine.chat.calls import R1_SEP, r1_calls
from bakehouse.engine.params import ToolCall

BODY = '{"what": "flour"}'


@pytest.mark.parametrize(
    "block",
    [
        f"```json\n{BODY}\n```",
        f" ```\n\n {BODY}```\n ",
        f"```json \n{BODY} \n\n```",
        f"\n{BODY}\n",
    ],
)
def test_a_block_may_have_fences(block: str) -> None:
    assert r1_calls(f"function{R1_SEP}weigh\n{block}") == [ToolCall("weigh", BODY)]


@pytest.mark.parametrize(
    "block", [f"```json\n{BODY}", f"{BODY}\n```", f"```yaml\n{BODY}\n```", "```", "```json\n```", ""]
)
def test_other_blocks_are_no_call(block: str) -> None:
    assert r1_calls(f"function{R1_SEP}weigh\n{block}") is None


def test_a_fence_is_looked_for_once() -> None:
    """A regex that tries each line with each fence would take minutes."""
    assert r1_calls(f"function{R1_SEP}weigh\n```" + "\n" * 50_000 + "```x" * 50_000) is None
