"""Taggers of words in a sentence, from layers only: one way, with a look at the next word, both ways.

After CNTK's hands-on lab on language understanding (ATIS): Embedding 150, LSTM 300, Dense; its sizes are the default of the profile
`paper`, and its parameter counts are tested.
"""

import cogkit as C
import cogkit.layers as L

__all__ = ["MODELS", "tagger"]

MODELS = ("forward", "lookahead", "bidirectional")


def tagger(x, model: str, tags: int, embed: int, cells: int, batch_norm: bool):
    """Scores of `tags` for each word of x, a sequence of one-hot words.

    model: "forward" (an LSTM of `cells`), "lookahead" (the same over each word and the next one) or "bidirectional" (two LSTMs of
    half as many cells, one from each end).  batch_norm: before and after the recurrence.
    """
    if model not in MODELS:
        raise ValueError(f"tagger: expected a model of {', '.join(MODELS)}, got '{model}'")
    if model == "bidirectional" and cells % 2:
        raise ValueError(f"tagger: expected an even number of cells for two directions, got {cells}")

    def norm(h):
        return L.BatchNormalization()(h) if batch_norm else h

    h = L.Embedding(embed)(x)
    if model == "lookahead":
        h = C.splice(h, C.sequence.future_value(h))
    h = norm(h)
    if model == "bidirectional":
        h = C.splice(L.Recurrence(L.LSTM(cells // 2))(h), L.Recurrence(L.LSTM(cells // 2), go_backwards=True)(h))
    else:
        h = L.Recurrence(L.LSTM(cells))(h)
    return L.Dense(tags)(norm(h))
