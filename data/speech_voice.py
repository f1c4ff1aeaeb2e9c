"""A synthetic speaker with exact phone times: espeak-ng's library through ctypes.

The library is that of the PyPI package espeakng-loader (GPL-3; a tool that makes data, in a process of its own, no part of cogkit). It
hands out phoneme events with the sample at which each begins. What it says depends, by some milliseconds, on all that the process made
it say before, so a reproducible corpus takes a fresh process for each shard.
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cogkit.errors import DataError

__all__ = ["ACCENTS", "PHONES", "VOICES", "Speaker", "Synthesizer", "synthesizer_files"]

RATE = 22050  # samples a second
ACCENTS = (
    "en-us",
    "en-us",
    "en-us",
    "en-us-nyc",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)
# Voice variants of train, dev and test: whoever is tested on was never trained on, nor was his next of kin.
VOICES = (
    """f1 f3 f5 m1 m2 m3 m4 m6 m8 klatt klatt2 klatt3 klatt4 Alicia Andrea Andy Denis Diogo Gene Gene2 Henrique Hugo Jacky Mario
    Michael Mike Nguyen Reed RicishayMax RicishayMax2 adam anika antonio aunty benjamin boris caleb david gustave ian iven iven2
    iven3 john marcelo max michel miguel mike2 norbert paul pedro quincy rob robert shelby zac""",
    "f2 m5 Annie Lee belinda pablo sandro travis",
    "f4 m7 klatt5 klatt6 Alex Marco ed edward edward2 grandma grandpa linda steph steph2 steph3 victor",
)
SILENCE = "sil"
# The library's names, stress marks taken off, by the phone that they are counted as: its allophones are many, some of them rare.
FOLD = {
    "aa": "A: 0",
    "ae": "a aa",
    "ah": "V",
    "ahr": "A@",
    "ao": "O O: O2",
    "aw": "aU",
    "ax": "@ @2 @5 @- a#",
    "ay": "aI aI2 aI@ aI3",
    "eh": "E",
    "ehr": "e@",
    "el": "@L",
    "er": "3 3: VR IR",
    "ey": "eI",
    "ih": "I I2 I#",
    "ihr": "i@ i@3",
    "iy": "i i:",
    "or": "O@ o@ U@",
    "ow": "oU",
    "oy": "OI",
    "uh": "U",
    "uw": "u: u",
    "b": "b",
    "ch": "tS",
    "d": "d d#",
    "dh": "D",
    "f": "f",
    "g": "g",
    "hh": "h",
    "jh": "dZ",
    "k": "k x",
    "l": "l l#",
    "m": "m m-",
    "n": "n n-",
    "ng": "N",
    "p": "p",
    "r": "r r- r#",
    "s": "s",
    "sh": "S",
    "t": "t t# t2 t[ ?",
    "th": "T",
    "v": "v",
    "w": "w w#",
    "y": "j ;",
    "z": "z z#",
    "zh": "Z",
    SILENCE: "_ _: _| _! _::",
}
PHONES = tuple(FOLD)
FOLDED = {name: phone for phone, names in FOLD.items() for name in names.split()}


@dataclass(frozen=True)
class Speaker:
    """A voice: an accent, a variant, words a minute, pitch and its range (0 to 99)."""

    accent: str
    variant: str
    speed: int
    pitch: int
    range: int


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
SYNCHRONOUS, PHONEME_EVENTS = 2, 1  # espeak_Initialize
LIST_END, PHONEME = 0, 7  # types of events
SPEED, PITCH, RANGE = 1, 3, 4  # parameters
CHARS_UTF8 = 1


def synthesizer_files() -> tuple[Path, Path]:
    """The library and the folder of its data; DataError where the package is not installed."""
    try:
        import espeakng_loader
    except ImportError:
        raise DataError("speech: expected the package espeakng-loader, got none; pip install 'cogkit[papers]'") from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


class Synthesizer:
    """The one synthesizer of this process. Raises DataError for a library of another make and for voices that it does not have."""

    def __init__(self):
        library, self._data = synthesizer_files()
        self._library = ctypes.CDLL(str(library))
        self._library.espeak_Info.restype = ctypes.c_char_p
        rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, str(self._data).encode(), PHONEME_EVENTS)
        if rate != RATE:
            raise DataError(f"speech: expected espeak-ng to speak at {RATE} samples a second, got {rate}")
        self.version = self._library.espeak_Info(None).decode().split()[0]
        self._audio: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def hash(self) -> str:
        """SHA-256 of the library and of the data that English takes."""
        names = ("phondata", "phonindex", "phontab", "intonations", "en_dict")
        voices = sorted((self._data / "voices" / "!v").iterdir()) + sorted((self._data / "lang" / "gmw").glob("en*"))
        digest = hashlib.sha256()
        for path in (Path(self._library._name), *(self._data / n for n in names), *voices):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _take(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != LIST_END:
            if events[i].type == PHONEME:
                # Of the eight bytes of a name those up to the first zero count.
                self._phones.append((events[i].sample, events[i].id.string.decode("latin1").strip("',")))
            i += 1
        return 0

    def say(self, text: str, speaker: Speaker, seed: int = 0) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Samples (int16) and (first sample, phone) in order, silences included; the seed is that of the voice's breath."""
        # An unknown variant would silently be the base voice.
        voice = f"{speaker.accent}+{speaker.variant}"
        if not (self._data / "voices" / "!v" / speaker.variant).is_file() or self._library.espeak_SetVoiceByName(voice.encode()):
            raise DataError(f"speech: expected a voice of espeak-ng {self.version}, got '{voice}'")
        for parameter, value in ((SPEED, speaker.speed), (PITCH, speaker.pitch), (RANGE, speaker.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        # The library seeds its noise by the clock; one kind of voice takes the C library's instead.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
        self._audio, self._phones = [], []
        raw = text.encode()
        self._library.espeak_Synth(
            raw,
            ctypes.c_size_t(len(raw) + 1),
            ctypes.c_uint(0),
            ctypes.c_int(1),
            ctypes.c_uint(0),
            ctypes.c_uint(CHARS_UTF8),
            None,
            None,
        )
        self._library.espeak_Synchronize()
        unknown = sorted({name for _, name in self._phones} - set(FOLDED))
        if unknown or not self._audio:
            raise DataError(f"speech: '{text}' by {voice}: expected phones of FOLD, got {', '.join(unknown) or 'no sound'}")
        return np.concatenate(self._audio), [(at, FOLDED[name]) for at, name in self._phones]
