"""Stop strings against a model that searches the whole text anew after each item."""

from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.stopping import StopStrings

PIECES = st.lists(st.text("ab¢", max_size=3).map(str.encode), max_size=12)
CUT_PIECES = st.lists(st.sampled_from([b"a", b"b", b"\xc2", b"\xa2", b"ab", b""]), max_size=16)
STRINGS = st.lists(st.text("ab¢", min_size=1, max_size=4), min_size=1, max_size=3)


def run(strings: list[str], pieces: list[bytes]) -> tuple[list[bytes], bytes, bool, int]:
    """Items that were released, the rest before the stop string, whether there was one, and how many were fed."""
    stopping: StopStrings[bytes] = StopStrings(strings, lambda piece: piece)
    items: list[bytes] = []
    for count, piece in enumerate(pieces, 1):
        released = stopping.feed(piece)
        items += released.items
        if released.hit:
            return items, released.rest, True, count
    return items + stopping.finish(), b"", False, len(pieces)


@given(STRINGS, PIECES | CUT_PIECES)
def test_the_text_before_the_first_stop_string_comes_out_and_nothing_else(strings, pieces):
    items, rest, hit, fed = run(strings, pieces)
    text = b"".join(items) + rest
    whole = b"".join(pieces)
    encoded = [string.encode() for string in strings]
    first = next(
        (n for n in range(1, len(pieces) + 1) if any(s in b"".join(pieces[:n]) for s in encoded)),
        None,
    )
    assert hit == (first is not None)
    if first is None:
        assert items == pieces
    else:
        assert fed == first
        seen = b"".join(pieces[:first])
        assert text == seen[: min(at for at in (seen.find(s) for s in encoded) if at >= 0)]
        assert items == pieces[: len(items)]
    assert whole.startswith(text)


@given(STRINGS, PIECES | CUT_PIECES)
def test_what_cannot_be_part_of_a_stop_string_is_not_held_back(strings, pieces):
    stopping: StopStrings[bytes] = StopStrings(strings, lambda piece: piece)
    encoded = [string.encode() for string in strings]
    out, seen = b"", b""
    for piece in pieces:
        released = stopping.feed(piece)
        out += b"".join(released.items)
        seen += piece
        if released.hit:
            return
        held = seen[len(out) :]
        assert not held or any(s.startswith(held[i:]) for i in range(len(held)) for s in encoded)


def test_without_strings_nothing_is_held():
    stopping: StopStrings[int] = StopStrings((), lambda _: b"x")
    assert stopping.feed(7).items == [7]
    assert stopping.finish() == []


@given(STRINGS, PIECES | CUT_PIECES, st.integers(0, 6))
def test_what_stands_behind_a_stop_string_is_of_no_use(strings, pieces, begun):
    stopping: StopStrings[bytes] = StopStrings(strings, lambda piece: piece)
    for piece in pieces[:begun]:
        if stopping.feed(piece).hit:
            return
    ahead = pieces[begun:]
    useful = stopping.useful(ahead)
    hits = [stopping.feed(piece).hit for piece in ahead[:useful]]
    assert hits[:-1] == [False] * len(hits[:-1])
    assert useful == len(ahead) or hits[-1]
