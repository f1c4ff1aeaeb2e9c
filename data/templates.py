"""Sentences with slot tags from templates in the language of Home Assistant's intents (hassil).

    [please ](turn|switch) on the {area:preferred_area} light[s]   [may be left out], (one|of these), {list:slot}, <rule>
    (in the kitchen;at noon)                                        these in any order

A template is parsed to a tree of tuples: ("text", s), ("slot", list, slot), ("rule", name), ("all", parts), ("one", parts),
("any", part) for what may be left out, ("mixed", parts) for any order. Choices are taken from a stream of numbers in [0, 1), in the order
in which they come up, so a sentence is a function of the stream alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.errors import DataError

__all__ = ["Grammar", "Tagged", "parse_template", "pick", "stream"]

WORD = re.compile(r"[^\W_][\w':./]*|[%°]")
Tagged = list[tuple[str, str]]  # (word, tag): O, B-slot, I-slot


def stream(seed: int, split: int, purpose: int = 0, index: int = 0) -> Callable[[], float]:
    """Numbers in [0, 1) that depend on the four alone (Philox)."""
    key = np.array([seed, split], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, purpose])).random


def pick(draw: Callable[[], float], items: Sequence[Any]) -> Any:
    """One of the items."""
    return items[int(draw() * len(items))]


def parse_template(text: str) -> tuple:
    """The tree of a template; ValueError with the place that cannot be read."""
    at = 0

    def parts(closing: str) -> tuple:
        nonlocal at
        mixed: list[tuple] = []
        ones: list[tuple] = []
        sequence: list[tuple] = []
        plain = ""

        def flush() -> None:
            nonlocal plain
            if plain:
                sequence.append(("text", plain))
            plain = ""

        def end(kind: str, done: list) -> None:
            flush()
            done.append(sequence[0] if len(sequence) == 1 else ("all", tuple(sequence)))
            sequence.clear()

        while True:
            c = text[at : at + 1]
            if c == closing:
                at += 1
                end("one", ones)
                break
            if c in ("", ")", "]"):
                raise ValueError(f"template {text!r}: expected {closing or 'the end'!r} at {at}, got {c or 'the end'!r}")
            at += 1
            if c in "([":
                flush()
                inner = parts(")" if c == "(" else "]")
                sequence.append(inner if c == "(" else ("any", inner))
            elif c in "{<":
                flush()
                close = text.find("}" if c == "{" else ">", at)
                if close < 0:
                    raise ValueError(f"template {text!r}: expected an end of {c!r} at {at - 1}, got none")
                name, _, slot = text[at:close].partition(":")
                sequence.append(("slot", name, slot or name) if c == "{" else ("rule", name))
                at = close + 1
            elif c == "|":
                end("one", ones)
            elif c == ";":
                end("one", ones)
                mixed.append(ones[0] if len(ones) == 1 else ("one", tuple(ones)))
                ones = []
            else:
                plain += c
        last = ones[0] if len(ones) == 1 else ("one", tuple(ones))
        return ("mixed", (*mixed, last)) if mixed else last

    return parts("")


class Grammar:
    """Rules, and the values of lists; `share` is how often what may be left out is said.

    `values(list, draw)` gives a value of a list: a text, itself a template.
    """

    def __init__(self, rules: Mapping[str, str], values: Callable[[str, Callable[[], float]], str], share: float = 0.35):
        self.rules, self.values, self.share = dict(rules), values, share
        self._parsed: dict[str, tuple] = {}

    def _tree(self, text: str) -> tuple:
        if text not in self._parsed:
            self._parsed[text] = parse_template(text)
        return self._parsed[text]

    def _say(self, tree: tuple, draw: Callable[[], float], out: list[tuple[str, str]]) -> None:
        kind = tree[0]
        if kind == "text":
            out.append((tree[1], ""))
        elif kind == "all":
            for part in tree[1]:
                self._say(part, draw, out)
        elif kind == "one":
            self._say(pick(draw, tree[1]), draw, out)
        elif kind == "any":
            if draw() < self.share:
                self._say(tree[1], draw, out)
        elif kind == "mixed":
            left = list(tree[1])
            while left:
                out.append((" ", ""))
                self._say(left.pop(int(draw() * len(left))), draw, out)
            out.append((" ", ""))
        elif kind == "rule":
            if tree[1] not in self.rules:
                raise DataError(f"template: expected a rule of {', '.join(sorted(self.rules))}, got <{tree[1]}>")
            self._say(self._tree(self.rules[tree[1]]), draw, out)
        else:
            said: list[tuple[str, str]] = []
            self._say(self._tree(self.values(tree[1], draw)), draw, said)
            out.append(("".join(text for text, _ in said), tree[2]))

    def sample(self, template: str, draw: Callable[[], float]) -> Tagged:
        """One sentence: lower-case words with their tags."""
        pieces: list[tuple[str, str]] = []
        self._say(self._tree(template), draw, pieces)
        text, spans = "", []
        for piece, slot in pieces:
            if slot:
                spans.append((len(text), len(text) + len(piece), slot))
            text += piece
        out: Tagged = []
        before = None
        for match in WORD.finditer(text.lower().replace("-", " ")):
            # A sign that follows a value ("70%") is a word of its own, and none of the value's.
            span = next((s for s in spans if s[0] <= match.start() < s[1]), None)
            out.append((match[0], "O" if span is None else ("I-" if span is before else "B-") + span[2]))
            before = span
        return out
