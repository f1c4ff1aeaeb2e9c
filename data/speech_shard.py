"""One shard of the speech corpus, made in a process of its own: python -m cogkit.data.speech_shard < request.json

From text to what a telephone hears: a synthetic speaker, a vocal tract of another length (resampling), a small room (decaying noise as
its response), a telephone's band, real babble or white noise behind it, mu-law of eight bits; then log-mel features and a state for
each frame. All that is drawn is a function of (seed, split, utterance).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.data.speech_voice import ACCENTS, PHONES, SILENCE, VOICES, Speaker, Synthesizer
from cogkit.data.templates import pick, stream

__all__ = ["DIM", "STATES", "features", "make_shard", "read_noises"]

PHONE_RATE = 8000
SHIFT, WINDOW = 80, 200  # samples: 10 and 25 ms
DIM = 40
THIRDS = 3
STATES = tuple(f"{phone}_{third}" for phone in PHONES for third in range(1, THIRDS + 1))
UTTERANCES_A_SPEAKER = 2
SPEAKER, SPEECH, SOUND = range(100, 103)  # purposes of streams
NOISE_PARTS = ((0.0, 0.7), (0.7, 0.8), (0.8, 1.0))  # of each recording: train, dev, test
# 22,050 Hz to 8,000 Hz is 160 / 441; other numerators make the vocal tract shorter or longer.
UP, DOWN = 160, 441


def read_noises(paths: list[str]) -> list[np.ndarray]:
    """Recordings at 8 kHz, of unit variance."""
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    out = []
    for path in paths:
        rate, samples = wavfile.read(path)
        samples = samples.astype(np.float64)
        samples = resample_poly(samples if samples.ndim == 1 else samples.mean(axis=1), PHONE_RATE, rate)
        out.append((samples - samples.mean()) / samples.std())
    return out


def draw_speaker(seed: int, split: int, number: int) -> tuple[Speaker, int]:
    """A speaker and the numerator of his resampling."""
    draw = stream(seed, split, SPEAKER, number)
    speaker = Speaker(
        pick(draw, ACCENTS),
        pick(draw, VOICES[split].split()),
        135 + int(81 * draw()),
        15 + int(71 * draw()),
        30 + int(41 * draw()),
    )
    return speaker, UP - 16 + int(36 * draw())


def telephone(speech: np.ndarray, noises: list[np.ndarray], split: int, draw: Any) -> np.ndarray:
    """Speech (n,) at 8 kHz as it comes out of a telephone, int16-like numbers; nothing is shifted in time."""
    from scipy.signal import butter, fftconvolve, sosfilt

    def between(low: float, high: float) -> float:
        return low + (high - low) * draw()

    # An integer of its own stream keys the noise, so what is drawn here never shifts what is drawn next.
    noise = np.random.Generator(np.random.Philox(key=int(draw() * 2**53)))
    decay = int(PHONE_RATE * between(0.03, 0.25))
    response = noise.standard_normal(decay) * np.exp(-6.9 * np.arange(decay) / decay)
    response[0] = between(3.0, 12.0)  # the direct way
    y = fftconvolve(speech, response / np.sqrt((response**2).sum()))[: len(speech)]
    y = sosfilt(butter(4, [between(180, 350), between(3000, 3700)], "band", fs=PHONE_RATE, output="sos"), y)
    if draw() < 0.7:
        recording = pick(draw, noises)
        low, high = (int(part * len(recording)) for part in NOISE_PARTS[split])
        behind = np.resize(np.roll(recording[low:high], -int(draw() * (high - low))), len(y))
    else:
        behind = noise.standard_normal(len(y))
    y = y / y.std() + behind / behind.std() * 10 ** (-between(8.0, 28.0) / 20)
    y = np.clip(y / 8, -1, 1)
    coded = np.round(127 * np.sign(y) * np.log1p(255 * np.abs(y)) / np.log(256)) / 127
    return np.sign(coded) * (256.0 ** np.abs(coded) - 1) / 255 * 32767


def features(samples: np.ndarray) -> np.ndarray:
    """Log energies of 40 mel bands (frames, 40) float32, a frame each 10 ms of 25 ms; DataError where the package is not there."""
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.samp_freq = PHONE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = DIM
    options.mel_opts.low_freq, options.mel_opts.high_freq = 64.0, 3800.0
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(PHONE_RATE, samples.astype(np.float32).tolist())
    bank.input_finished()
    return np.array([bank.get_frame(t) for t in range(bank.num_frames_ready)], np.float32).reshape(-1, DIM)


def label_frames(phones: list[tuple[float, str]], end: float, frames: int) -> tuple[np.ndarray, list[str]]:
    """A state (frames,) for each frame by its middle: which phone it falls into, and into which third of it; phones that have a frame.

    phones: (first sample, name) in order; silences that touch are one.
    """
    spans = [span for k, span in enumerate(phones) if not (k and span[1] == phones[k - 1][1] == SILENCE)]
    starts = np.array([at for at, _ in spans])
    ends = np.append(starts[1:], end)
    middle = np.arange(frames) * SHIFT + WINDOW / 2
    at = np.clip(np.searchsorted(starts, middle, side="right") - 1, 0, len(spans) - 1)
    third = (middle - starts[at]) / np.maximum(ends[at] - starts[at], 1.0) * THIRDS
    states = np.array([PHONES.index(name) for _, name in spans])[at] * THIRDS + np.clip(third.astype(int), 0, THIRDS - 1)
    return states, [spans[k][1] for k in np.unique(at)]


def make_shard(texts: list[str], first: int, split: int, seed: int, noises: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Features, states and lengths of utterances first, first + 1, ...; phones (with at least a frame) and voices as text."""
    from scipy.signal import resample_poly

    synthesizer = Synthesizer()
    frames, states, spoken, voices = [], [], [], []
    for index, text in enumerate(texts, first):
        speaker, up = draw_speaker(seed, split, index // UTTERANCES_A_SPEAKER)
        draw = stream(seed, split, SPEECH, index)
        said = Speaker(speaker.accent, speaker.variant, int(speaker.speed * (0.9 + 0.2 * draw())), speaker.pitch, speaker.range)
        audio, phones = synthesizer.say(text, said, index)
        before, after = (int(PHONE_RATE * (0.1 + 0.3 * draw())) for _ in range(2))
        clean = np.pad(resample_poly(audio.astype(np.float64), up, DOWN), (before, after))
        heard = telephone(clean, noises, split, stream(seed, split, SOUND, index))
        x = features(heard)
        times = [(0.0, SILENCE), *((before + at * up / DOWN, name) for at, name in phones), (len(clean) - after, SILENCE)]
        y, heard_phones = label_frames(times, len(clean), len(x))
        frames.append(x)
        states.append(y.astype(np.int16))
        spoken.append(" ".join(heard_phones))
        voices.append(f"{said.accent}+{said.variant}")
    return {
        "features": np.concatenate(frames),
        "states": np.concatenate(states),
        "lengths": np.array([len(x) for x in frames]),
        "phones": np.array(spoken),
        "voices": np.array(voices),
    }


def main() -> None:
    """Reads one request {texts, first, split, seed, noises, out} and writes out, a .npz."""
    request = json.load(sys.stdin)
    made = make_shard(request["texts"], request["first"], request["split"], request["seed"], read_noises(request["noises"]))
    with Path(request["out"]).open("xb") as file:
        np.savez(file, allow_pickle=False, **made)


if __name__ == "__main__":
    main()
