"""Slots of tagged sentences, and how many of them were found: what conlleval counts."""

from collections.abc import Iterable, Sequence

__all__ = ["f1", "slots"]


def slots(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first, after the last, name) of each slot of B-, I- and O tags; I- after another name or after O begins a slot."""
    out, begin, name = set(), 0, ""
    for k, tag in enumerate([*tags, "O"]):
        kind, _, this = tag.partition("-")
        if name and (kind != "I" or this != name):
            out.add((begin, k, name))
            name = ""
        if kind != "O" and not name:
            begin, name = k, this
    return out


def f1(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Harmonic mean of precision and recall in per cent over (true tags, found tags) of sentences; a slot counts whole or not at all."""
    both = true = found = 0
    for wanted, got in pairs:
        a, b = slots(wanted), slots(got)
        both, true, found = both + len(a & b), true + len(a), found + len(b)
    return 200.0 * both / (true + found) if true + found else 100.0
