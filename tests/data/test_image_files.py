"""Image files: what is decoded, transforms on images of many sizes, keys, archives, base64, faults by line."""

import base64
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from cogkit.data import (
    Base64ImageDeserializer,
    CTFDeserializer,
    ImageDeserializer,
    MinibatchSource,
    StreamDef,
    StreamDefs,
    transforms,
)
from cogkit.errors import DataError

RNG = np.random.default_rng(5)


def encoded(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def pictures(folder, sizes):
    """PNG files of these (height, width); their pixels."""
    made = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    for i, pixels in enumerate(made):
        (folder / f"{i}.png").write_bytes(encoded(pixels))
    return made


def listed(path, lines):
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    return path


def bgr(pixels):
    return pixels[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)


def both(*chain, classes=3):
    return StreamDefs(x=StreamDef(field="image", transforms=list(chain)), y=StreamDef(field="label", shape=classes))


def sweep(deserializers, size=4, **options):
    """All values of one sweep by stream."""
    with MinibatchSource(deserializers, max_sweeps=1, **options) as source:
        found = {i.name: [] for i in source.stream_infos()}
        while batch := source.next_minibatch(size):
            for info, data in batch.items():
                found[info.name].append(data.value)
        return {name: np.concatenate(v) for name, v in found.items()}


def test_images_come_as_cntk_has_them(tmp_path):
    made = pictures(tmp_path, [(5, 7)] * 6)
    path = listed(tmp_path / "map.txt", [(f".../{i}.png", i % 3) for i in range(6)])
    found = sweep(ImageDeserializer(path, both()), randomize=False)
    assert np.array_equal(found["x"], np.stack([bgr(m) for m in made]))
    assert np.array_equal(found["y"], np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]])
    same = sweep(ImageDeserializer(path, both(transforms.scale(7, 5, 3))), randomize=False)
    assert np.array_equal(same["x"], found["x"])


def test_images_of_many_sizes_are_scaled_to_one(tmp_path):
    sizes = [(8, 8), (20, 11), (5, 30)]
    made = pictures(tmp_path, sizes)
    path = listed(tmp_path / "map.txt", [(f".../{i}.png", 0) for i in range(3)])
    chain = [transforms.crop("center", side_ratio=0.5), transforms.scale(6, 4, 3), transforms.normalize(128, 0.5)]
    found = sweep(ImageDeserializer(path, both(*chain)), randomize=False)["x"]
    for pixels, got in zip(made, found, strict=True):
        x = bgr(pixels)[None]
        cut = transforms.crop("center", side_ratio=0.5).apply(x, None)
        want = (transforms.scale(6, 4, 3).apply(cut, None) - 128) * 0.5
        np.testing.assert_allclose(got, want[0], rtol=1e-6)
    grey = sweep(ImageDeserializer(path, both(transforms.scale(4, 4, 1))), randomize=False)["x"]
    assert grey.shape == (3, 1, 4, 4)
    with pytest.raises(
        DataError, match=r"map.txt byte 12 \(line 2\), sequence '1': expected an image of \(3, 8, 8\), as the first"
    ):
        sweep(ImageDeserializer(path, both()), randomize=False)


def test_what_is_drawn_goes_by_the_place_among_random_transforms(tmp_path):
    pictures(tmp_path, [(20, 40)] * 5)
    path = listed(tmp_path / "map.txt", [(f".../{i}.png", i % 3) for i in range(5)])
    cut = transforms.crop("randomside", crop_size=(20, 10))
    a = ImageDeserializer(path, StreamDefs(a=StreamDef(field="image", transforms=[transforms.scale(40, 20, 3), cut])))
    b = ImageDeserializer(path, StreamDefs(b=StreamDef(field="image", transforms=[cut])))
    found = sweep([a, b], size=2)
    assert found["a"].shape == (5, 3, 10, 20) and np.array_equal(found["a"], found["b"])
    one, two = (
        sweep(ImageDeserializer(path, both(cut)), multithreaded_deserializer=m, size=s) for m, s in ((False, 1), (True, 5))
    )
    assert np.array_equal(one["x"], two["x"])
    assert not np.array_equal(one["x"], sweep(ImageDeserializer(path, both(cut)), randomization_seed=9)["x"])


def test_keys_archives_and_base64(tmp_path):
    made = pictures(tmp_path, [(5, 7)] * 4)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as z:
        for i in range(4):
            z.write(tmp_path / f"{i}.png", f"in/{i}.png")
    archive = listed(tmp_path / "zip.txt", [(f".../all.zip@/in/{i}.png", 0) for i in range(4)])
    want = np.stack([bgr(m) for m in made])
    assert np.array_equal(sweep(ImageDeserializer(archive, both()), randomize=False)["x"], want)
    plain = listed(tmp_path / "64.txt", [(0, base64.b64encode(encoded(m)).decode()) for m in made])
    assert np.array_equal(sweep(Base64ImageDeserializer(plain, both()), randomize=False)["x"], want)
    order = [2, 0, 3, 1]
    keyed = listed(tmp_path / "keys.txt", [(100 + i, i % 3, base64.b64encode(encoded(made[i])).decode()) for i in order])
    text = tmp_path / "index.ctf"
    text.write_text("".join(f"{100 + i} |index {i}\n" for i in range(4)))
    index = CTFDeserializer(text, StreamDefs(index=StreamDef(field="index", shape=1)))
    found = sweep([index, Base64ImageDeserializer(keyed, both())], size=2)
    assert np.array_equal(found["x"], want[found["index"].ravel().astype(int)])


def test_broken_lines_are_faults(tmp_path):
    made = pictures(tmp_path, [(4, 4)] * 2)
    (tmp_path / "cut.png").write_bytes(encoded(made[0])[:40])
    lines = [(".../0.png", 1), (".../none.png", 1), (".../cut.png", 0), (".../1.png", 7), (".../1.png",), (".../1.png", 2)]
    path = listed(tmp_path / "map.txt", lines)
    with MinibatchSource(ImageDeserializer(path, both()), max_sweeps=1, max_errors=4, randomize=False) as source:
        batch = source.next_minibatch(10)
        assert np.array_equal(batch[source["x"]].value, np.stack([bgr(m) for m in made]))
        told = [str(f) for f in source.errors]
    assert [t.partition(": ")[0].rpartition("(")[2] for t in told] == [f"line {k}), sequence '{k - 1}'" for k in (2, 3, 4, 5)]
    for said, what in zip(
        told, ["No such file", "an image that can be read", "a label in [0, 3), got '7'", "2 columns"], strict=True
    ):
        assert what in said, said
    with pytest.raises(DataError, match="line 2"):
        sweep(ImageDeserializer(path, both()), randomize=False)


@pytest.mark.parametrize(
    ("text", "streams", "kind", "message"),
    [
        (None, both(), DataError, "expected a list of images, got No such file"),
        ("\n\n", both(), DataError, "expected a line or more, got none"),
        ("a.png\n", both(), DataError, "expected 2 or 3 columns between tabs, got 1"),
        ("a.png\t1\n", both(), DataError, r"line 1: expected an image file, got No such file or directory: 'a.png'"),
        ("a.png\t1\n", StreamDefs(x=StreamDef(field="sound")), ValueError, "expected field 'image' or 'label', got 'sound'"),
        ("a.png\t1\n", StreamDefs(y=StreamDef(field="label")), ValueError, "expected the number of classes as shape, got None"),
        ("a.png\t1\n", both(transforms.scale(3, 3, 2)), ValueError, "expected images of 1 or 3 channels, got 2"),
        ("a.png\t1\n", {}, ValueError, "expected one stream or more, got none"),
    ],
)
def test_what_cannot_be_opened(tmp_path, text, streams, kind, message):
    if text is not None:
        (tmp_path / "map.txt").write_text(text)
    with pytest.raises(kind, match=message):
        ImageDeserializer(tmp_path / "map.txt", streams)
