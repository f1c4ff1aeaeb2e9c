"""From scores of states to phones: Viterbi over a loop of phones, and how many phones were wrong."""

from collections.abc import Iterable, Sequence

import numpy as np

from cogkit.data.htk_corpus import phone_of

__all__ = ["PhoneLoop", "phone_error", "read_segments", "read_transcripts"]

STAY, ADVANCE, ENTER = range(3)


def read_transcripts(path) -> dict[str, list[str]]:
    """Phones by key of a file of `key phone phone ...` lines."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0]: words[1:] for words in lines if words}


def read_segments(path, period: int = 100_000) -> dict[str, list[tuple[str, int]]]:
    """(state, frames) of each segment by key of a master label file; period: units of 100 ns in a frame."""
    out: dict[str, list[tuple[str, int]]] = {}
    segments: list[tuple[str, int]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith('"'):
            segments = out.setdefault(line.strip('"').removeprefix("*/").removesuffix(".lab"), [])
        elif (words := line.split()) and words[0].isdigit():
            segments.append((words[2], round((int(words[1]) - int(words[0])) / period)))
    return out


class PhoneLoop:
    """Any phone after any phone, each through its states in order; durations, priors and the bigram of phones are those of training.

    A state stays with probability 1 - 1 / (its mean length). The bigram is smoothed by one count shared among all phones.
    """

    def __init__(
        self, states: Sequence[str], segments: Iterable[Sequence[tuple[str, int]]], transcripts: Iterable[Sequence[str]]
    ):
        index = {s: k for k, s in enumerate(states)}
        frames, runs = np.ones(len(states)), np.ones(len(states))
        for segment in segments:
            for state, length in segment:
                frames[index[state]] += length
                runs[index[state]] += 1
        self.log_prior = np.log(frames / frames.sum())
        leave = np.clip(runs / frames, 1e-3, 0.999)
        self._leave, self._stay = np.log(leave), np.log1p(-leave)
        names = [phone_of(s) for s in states]
        self.phones = list(dict.fromkeys(names))
        at = {p: k for k, p in enumerate(self.phones)}
        self._phone = np.array([at[n] for n in names])
        self._first = np.array([names.index(p) for p in self.phones])
        self._last = np.array([len(names) - 1 - names[::-1].index(p) for p in self.phones])
        if any(len(set(names[a : b + 1])) > 1 for a, b in zip(self._first, self._last, strict=True)):
            raise ValueError("PhoneLoop: expected the states of a phone side by side in the list, got them apart")
        n = len(self.phones)
        begins, follows = np.full(n, 1.0 / n), np.full((n, n), 1.0 / n)
        for phones in transcripts:
            spoken = [at[p] for p in phones]
            begins[spoken[:1]] += 1
            np.add.at(follows, (spoken[:-1], spoken[1:]), 1)
        self._begins, self._follows = np.log(begins / begins.sum()), np.log(follows / follows.sum(axis=1, keepdims=True))

    def decode(self, log_posteriors: np.ndarray, weight: float = 1.0) -> list[str]:
        """Phones of an utterance (frames, states); weight: of the bigram beside the acoustic scores."""
        scores = log_posteriors - self.log_prior
        entry, begins = weight * self._follows, weight * self._begins
        v = np.full(scores.shape[1], -np.inf)
        v[self._first] = begins + scores[0, self._first]
        moves = np.zeros(scores.shape, np.int8)
        from_phone = np.zeros((len(scores), len(self.phones)), np.int16)
        for t in range(1, len(scores)):
            best, move = v + self._stay, moves[t]
            leaving = v + self._leave
            ahead = np.roll(leaving, 1)
            ahead[self._first] = -np.inf
            better = ahead > best
            best[better], move[better] = ahead[better], ADVANCE
            into = leaving[self._last][:, None] + entry
            from_phone[t] = into.argmax(axis=0)
            into = into.max(axis=0)
            better = into > best[self._first]
            best[self._first[better]], move[self._first[better]] = into[better], ENTER
            v = best + scores[t]
        at = int(self._last[v[self._last].argmax()])
        out = [self._phone[at]]
        for t in range(len(scores) - 1, 0, -1):
            if moves[t, at] == ADVANCE:
                at -= 1
            elif moves[t, at] == ENTER:
                at = int(self._last[from_phone[t, self._phone[at]]])
                out.append(self._phone[at])
        return [self.phones[k] for k in reversed(out)]


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and replacements from a to b, the fewest."""
    row = np.arange(len(b) + 1)
    other = np.array(b, dtype=object)
    for i, x in enumerate(a, 1):
        new = np.minimum(row[1:] + 1, row[:-1] + (other != x))
        # Insertions go from left to right: a running minimum of what each place costs less its position.
        row = np.minimum.accumulate(np.concatenate([[i], new]) - np.arange(len(b) + 1)) + np.arange(len(b) + 1)
    return int(row[-1])


def phone_error(pairs: Iterable[tuple[Sequence[str], Sequence[str]]], silence: str = "") -> float:
    """Errors in per cent of the true phones over (true, found) utterances; silence is no phone."""
    wrong = total = 0
    for true, found in pairs:
        a, b = ([p for p in phones if p != silence] for phones in (true, found))
        wrong, total = wrong + distance(a, b), total + len(a)
    return 100.0 * wrong / max(total, 1)
