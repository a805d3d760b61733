"""What the dummy model is inclined to say: made-up words of lower-case letters, and an end before long.

Logits are a prior by the class of the token before, plus noise from the row's hash. The end of the turn grows likelier
with each token since the turn's start and certain before 512, so every generation that may end does so within 512.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bakehouse.engine.tokenizer.bytes import VOCAB_SIZE

#: Every age returns after so many tokens.
PERIOD = 512
#: From this age on the end of the turn outweighs everything else.
_CERTAIN = 480
#: At this age it is about as likely as the likeliest letter.
_LIKELY = 200

#: How often letters come in English text, per cent, as frequency tables of cryptanalysis give them.
_LETTERS = (
    *(8.2, 1.5, 2.8, 4.3, 12.7, 2.2, 2.0, 6.1, 7.0, 0.15, 0.77, 4.0, 2.4),
    *(6.7, 7.5, 1.9, 0.1, 6.0, 6.3, 9.1, 2.8, 0.98, 2.4, 0.15, 2.0, 0.07),
)
_BLANK, _VOWEL, _CONSONANT, _POINT, _OTHER = range(5)
_VOWELS = b"aeiou"


def classes() -> npt.NDArray[np.int64]:
    """The class of each id, [vocabulary]."""
    found = np.full(VOCAB_SIZE, _OTHER, np.int64)
    found[list(range(ord("a"), ord("z") + 1))] = _CONSONANT
    found[list(_VOWELS)] = _VOWEL
    found[list(b" \n")] = _BLANK
    found[list(b".,!?;:")] = _POINT
    return found


def prior() -> npt.NDArray[np.float32]:
    """Logits by the class of the token before, [classes, vocabulary]."""
    base = np.full(VOCAB_SIZE, -14.0)
    base[33:127] = -7.0
    base[128:256] = -18.0
    base[256:] = -20.0
    for index, share in enumerate(_LETTERS):
        base[ord("a") + index] = math.log(share)
    by_class = np.tile(base, (5, 1))
    for kind in (_VOWEL, _CONSONANT):
        by_class[kind, ord(" ")] = 2.2
        by_class[kind, list(b".,?")] = (0.6, 0.4, -1.0)
    by_class[_VOWEL, list(_VOWELS)] -= 3.0
    consonants = classes() == _CONSONANT
    by_class[_CONSONANT, consonants] -= 2.5
    by_class[_POINT, list(b" \n")] = (12.0, 7.0)
    return by_class.astype(np.float32)


def end_logit(ages: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The logit of the end of the turn, by how many tokens ago (modulo `PERIOD`) the turn began."""
    rising = -6.0 + 11.0 * ages / _LIKELY
    return np.where(ages >= _CERTAIN, 1e4, rising).astype(np.float32)
