"""Causal masks with decay, on the source text of Python's standard library."""

from __future__ import annotations

import zlib
from html import escape
from typing import Any

import numpy as np

import structmask as sm
from demo import inputs, measure
from demo.rivals import Case, structured
from demo.section import Section

NAME = "causal"

HALF_LIVES = np.array([16.0, 128.0, 1024.0, np.inf])
_FEATURES, _VALUES = 64, 64
_FINE = 512  # features for the passage shown, so that few contexts share one by chance
_SHOWN = 110  # words of the passage


def build(*, quick: bool, say: measure.Say) -> Section:
    """Four heads read the text with different memories."""
    sizes = (256, 1024) if quick else (256, 1024, 4096, 16384, 65536)
    rows = measure.sweep(case, sizes, say)
    say("what the heads attend to")
    count = 2048 if quick else 16384
    return Section(
        NAME,
        "Causal masks that forget",
        _body(count),
        f"4 heads with half-lives of 16, 128, 1,024 and ∞ words; {_FEATURES} features, values of size {_VALUES}, "
        "float32",
        rows,
    )


def case(tokens: int, features: int = _FEATURES) -> Case:
    """Queries: the last three words. Keys: the three words before word j. Values: word j."""
    words, _ = inputs.words(tokens)
    contexts = _contexts(words, features)
    decay = (0.5 ** (1 / HALF_LIVES)).astype(
        np.float32
    )  # as the library will see it: the reference raises it to powers
    values = _codes(words)[_number(words)]
    steps = np.arange(1 - tokens, tokens)
    table = np.where(steps >= 0, decay[:, None].astype(np.float64) ** np.abs(steps), 0)
    return Case(
        mask=sm.Causal(tokens, decay=decay[:, None]),
        table=table,
        F=contexts[:, 1:],
        G=contexts[:, :-1],
        V=np.repeat(values[None], HALF_LIVES.size, axis=0),
        decay=decay,
    )


def _contexts(words: list[str], count: int) -> Any:
    """For each head and place, the one, two and three words before it, each hashed into one of `count` features.

    `count` is a power of two. Two places have a product of 1, 5 or 14 if their last one, two or three words agree.
    """
    known = np.array([0, 0, 0, *(zlib.crc32(word.encode()) for word in words)], dtype=np.uint64)
    features = np.zeros((HALF_LIVES.size, len(words) + 1, count), dtype=np.float32)
    places = np.arange(len(words) + 1)
    context = np.zeros(places.size, dtype=np.uint64)
    for order in (1, 2, 3):
        context = context * np.uint64(1_000_003) + known[3 - order : known.size + 1 - order]
        for h, seed in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)):
            bucket = ((context + np.uint64(order)) * np.uint64(seed)) >> np.uint64(65 - count.bit_length())
            features[h, places, bucket.astype(np.intp)] += order
    return features


def _number(words: list[str]) -> Any:
    return np.unique(words, return_inverse=True)[1]


def _codes(words: list[str]) -> Any:
    """A vector of signs for each word of the vocabulary."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(set(words)), _VALUES))
    return (signs / np.sqrt(_VALUES)).astype(np.float32)


def _body(count: int) -> str:
    (words, blanks), problem = inputs.words(count), case(count, _FINE)
    numbers = _number(words)
    guesses = (structured(problem)[:, :-1] @ _codes(words).T).argmax(axis=-1)
    right = guesses == numbers[1:]
    shares = ", ".join(
        f"{share:.0%} ({_life(half_life)})" for share, half_life in zip(right.mean(axis=1), HALF_LIVES, strict=True)
    )
    common = np.bincount(numbers).max() / count
    place = _telling_place(words, right)
    return (
        "<p>The tokens are words of the standard library's source. Nothing is learnt: a query is the last three words, "
        f"a key the three words before an earlier word, hashed (here into {_FINE} features); the value is that earlier "
        "word. So each head looks up what followed the same words before, and the mask decides how far back it "
        "remembers: <em>M<sub>ij</sub> = ½<sup>(i−j)/half-life</sup></em>, nothing from the future.</p>"
        f"{_passages(words, blanks, problem, place)}"
        f"<p>Attention as a reader of {count:,} words: the next word is guessed right in {shares} of the cases, "
        "by memory. "
        f"Always guessing the most common word gives {common:.0%}.</p>"
    )


def _life(half_life: float) -> str:
    return "∞" if np.isinf(half_life) else f"{half_life:,.0f}"


def _telling_place(words: list[str], right: Any) -> int:
    """A place where the middle heads guess a word right and its context occurs several times in the passage shown."""
    three = list(zip(words, words[1:], words[2:], strict=False))
    best, most = _SHOWN, -1
    for i in range(_SHOWN, len(words) - 1):
        if not (right[1, i] and words[i + 1].isalpha() and len(words[i + 1]) > 3):
            continue
        context = three[i - 2]
        seen = min(3, sum(earlier == context for earlier in three[i - _SHOWN : i - 2])) + sum(map(str.isalpha, context))
        if seen > most:
            best, most = i, seen
    return best


def _passages(words: list[str], blanks: list[str], problem: Case, place: int) -> str:
    """What one word attends to is one row of A = M * (F G^T): the transposed product with a unit vector."""
    unit = np.zeros((problem.tokens, 1), dtype=np.float32)
    unit[place] = 1
    A = problem.mask * sm.LowRank(problem.F, problem.G)
    weights = (A.T @ unit)[..., 0]
    weights = weights / weights.max(axis=1, keepdims=True)
    start = place - _SHOWN + 1
    blocks = []
    for h, half_life in enumerate(HALF_LIVES):
        shown = "".join(_marked(blanks[j], words[j], weights[h, j]) for j in range(max(start, 1), place + 1))
        label = "remembers everything" if np.isinf(half_life) else f"half-life {half_life:,.0f} words"
        blocks.append(
            f'<figure><pre class="passage">{shown}<b class="asked">?</b></pre><figcaption>{label}</figcaption></figure>'
        )
    title = (
        f"What should follow “{escape(' '.join(words[place - 2 : place + 1]).strip())}”? The stronger its colour, "
        "the more "
        f"a word weighs in the answer. (The text goes on with “{escape(words[place + 1])}”; "
        "the place was picked among those where the head of half-life 128 guesses right.)"
    )
    return f'<p class="lead-in">{title}</p><div class="gallery of2">{"".join(blocks)}</div>'


def _marked(blank: str, word: str, weight: float) -> str:
    """A word on a background as strong as its weight."""
    if weight < 0.02:
        return escape(blank + word)
    if word.startswith("\n"):  # a line end has no width: mark a sign for it
        return f'{blank}<mark style="--w:{weight:.2f}">↵</mark>{word}'
    return f'{blank}<mark style="--w:{weight:.2f}">{escape(word)}</mark>'
