"""The speech corpus: phone times are where the sound is, voices are who they say, and a corpus is the same when it is made again."""

import numpy as np
import pytest

from cogkit.data import speech_shard as shard
from cogkit.data import speech_voice as voice
from cogkit.data.folder import open_folder
from cogkit.data.htk import read_features
from cogkit.data.speech import RECIPE, run_shard, segments
from cogkit.errors import DataError


def test_frames_take_the_state_at_their_middle():
    # frame t is centred on 80 t + 100: aa from 0 to 600 in thirds of 200, then one sample of t that no frame sees, then silence
    states, phones = shard.label_frames([(0, "aa"), (600, "t"), (601, "sil"), (650, "sil")], 1000, 11)
    names = [shard.STATES[s] for s in states]
    assert names == ["aa_1", "aa_1", "aa_2", "aa_2", "aa_3", "aa_3", "aa_3", "sil_1", "sil_2", "sil_2", "sil_3"]
    assert phones == ["aa", "sil"]
    assert segments(states)[:3] == [(0, 2, "aa_1"), (2, 4, "aa_2"), (4, 7, "aa_3")] and segments(states)[-1][:2] == (10, 11)


def test_the_tables():
    assert len(shard.STATES) == 3 * len(voice.PHONES) == 138
    names = [name for names in voice.FOLD.values() for name in names.split()]
    assert len(names) == len(set(names))
    parts = [set(part.split()) for part in voice.VOICES]
    assert sum(map(len, parts)) == len(set().union(*parts)) and all(len(p) >= 8 for p in parts)


@pytest.fixture(scope="module")
def synthesizer():
    pytest.importorskip("espeakng_loader")
    return voice.Synthesizer()


def speaker(**other):
    return voice.Speaker(**({"accent": "en-us", "variant": "f1", "speed": 170, "pitch": 50, "range": 50} | other))


def test_voices_that_are_not_there_are_named(synthesizer):
    for other in ({"variant": "nobody"}, {"accent": "en-nowhere"}):
        with pytest.raises(DataError, match="expected a voice of espeak-ng 1.52.0, got 'en-(us|nowhere)\\+(nobody|f1)'"):
            synthesizer.say("hello", speaker(**other))


def test_every_voice_sounds_otherwise(synthesizer):
    seen = set()
    for variant in " ".join(voice.VOICES).split():
        samples, phones = synthesizer.say("show me flights to boston", speaker(variant=variant))
        seen.add(samples.tobytes())
        starts = [at for at, _ in phones]
        assert starts == sorted(starts) and starts[0] >= 0 and len(samples) - starts[-1] < 0.1 * voice.RATE  # some echo
    assert len(seen) == sum(len(part.split()) for part in voice.VOICES)


def test_times_are_where_the_sound_is(synthesizer):
    samples, phones = synthesizer.say("she sells sea shells by the sea shore", speaker())
    energy = {}
    for (at, name), (end, _) in zip(phones, phones[1:], strict=False):
        piece = samples[at:end].astype(float)
        if len(piece) > 400:
            power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)))) ** 2
            energy.setdefault(name, []).append(power[int(len(piece) * 3000 / voice.RATE) :].sum() / power.sum())
    assert min(energy["s"]) > 0.8 > 0.3 > max(energy["iy"] + energy["ao"] + energy["or"] if "ao" in energy else energy["iy"])


def test_features():
    pytest.importorskip("kaldi_native_fbank")
    t = np.arange(8000) / 8000
    low, high = (shard.features(1000 * np.sin(2 * np.pi * f * t)) for f in (300, 3000))
    assert low.shape == (1 + (8000 - 200) // 80, 40) and low.dtype == np.float32
    assert low.mean(0).argmax() < 10 < 30 < high.mean(0).argmax()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("kaldi_native_fbank")
    folder = tmp_path_factory.mktemp("speech")
    try:
        return [
            open_folder(RECIPE.prepare(folder / f"{k}.d", size, quiet=True)) for k, size in enumerate(((9, 4), (9, 4), (12, 2)))
        ]
    except DataError as error:
        pytest.skip(str(error))


def test_made_again_it_is_the_same_and_smaller_is_a_beginning(small):
    one, two, more = small
    assert one.hash == two.hash
    frames = one.about["train"]["frames"]
    a, b = (read_features(f["train.features"]) for f in (one, more))
    assert len(a) == frames < len(b) and (a == b[:frames]).all()
    assert one.about["dev"]["utterances"] == 2 and one.about["test"]["utterances"] == 4


def test_its_files_fit_each_other(small):
    folder = small[0]
    states = folder["states.list"].read_text().split()
    for split in ("train", "dev", "test"):
        script = [line.split("=") for line in folder[f"{split}.scp"].read_text().splitlines()]
        words, phones = (
            dict(x.split(" ", 1) for x in folder[f"{split}.{n}"].read_text().splitlines()) for n in ("words", "phones")
        )
        blocks = folder[f"{split}.mlf"].read_text().split('"*/')[1:]
        assert len(script) == len(words) == len(phones) == len(blocks) == folder.about[split]["utterances"]
        for (key, place), block in zip(script, blocks, strict=True):
            first, last = map(int, place.partition("[")[2][:-1].split(","))
            lines = [line.split() for line in block.splitlines()[1:-1]]
            assert block.startswith(f"{key}.lab") and int(lines[-1][1]) == (last + 1 - first) * 100000
            assert {name for _, _, name in lines} <= set(states)
            spoken = [name.rpartition("_")[0] for _, _, name in lines]
            assert [p for k, p in enumerate(spoken) if k == 0 or p != spoken[k - 1]] == [
                p for k, p in enumerate(phones[key].split()) if k == 0 or p != phones[key].split()[k - 1]
            ]


def test_a_shard_that_fails_says_where(tmp_path):
    pytest.importorskip("espeakng_loader")
    request = {
        "texts": ["hello"],
        "first": 40,
        "split": 2,
        "seed": 0,
        "noises": [str(tmp_path / "none.wav")],
        "out": str(tmp_path / "x"),
    }
    with pytest.raises(DataError, match="speech: shard 40 of test: expected its utterances, got .*none.wav"):
        run_shard(request)
