"""Transforms: the native loop beside NumPy, random numbers by sample, CNTK's crop, scale, mean and color."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.data import ArrayDeserializer, MinibatchSource, StreamDef, StreamDefs, native
from cogkit.data import transforms as T
from cogkit.data.prefetch import Ring
from cogkit.errors import DataError

RNG = np.random.default_rng(0)
GREY, RGB = np.zeros((1, 1, 4, 4)), np.zeros((1, 3, 4, 4))


def draw(n, seed=3, purpose=0, sweep=0):
    return T.Draw(seed, purpose, np.arange(n), np.full(n, sweep))


def through(arrays, transforms, dtype=np.float32, seed=3, sweep=0, **spec):
    """What a deserialiser makes of all its rows."""
    reader = ArrayDeserializer({"x": arrays}, StreamDefs(x=StreamDef(transforms=transforms, **spec)), dtype)
    n = len(arrays)
    out = reader.read(np.arange(n), np.full(n, sweep), seed, Ring().take)["x"]
    assert out.dtype == dtype and out.shape == (n, *reader.streams["x"].shape)
    return out


def numpys(x, transforms, seed=3, sweep=0):
    """The same with each transform on its own, in NumPy."""
    x = x.astype(np.float32)
    for k, t in enumerate(transforms):
        assert t.shape_of(x.shape[1:]) == t.apply(x.copy(), draw(len(x), seed, k, sweep)).shape[1:]
        x = t.apply(x.copy(), draw(len(x), seed, k, sweep))
    return x


def resample(x: np.ndarray, window: np.ndarray, height: int, width: int, nearest: bool, pad_value: float | None) -> np.ndarray:
    """Windows (n, 4: top, left, height, width, in pixels, fractions allowed) of images, each resized to height x width.

    Bilinear between pixel centres, or the nearest pixel; outside the image its border (`pad_value` None) or pad_value.
    """
    n, c, h, w = x.shape
    y = window[:, 0:1] + (np.arange(height) + 0.5) * window[:, 2:3] / height - 0.5
    z = window[:, 1:2] + (np.arange(width) + 0.5) * window[:, 3:4] / width - 0.5
    rows = np.arange(n)[:, None, None]

    def at(i: np.ndarray, j: np.ndarray) -> np.ndarray:  # (n, height, width, c)
        return x[rows, :, np.clip(i, 0, h - 1)[:, :, None], np.clip(j, 0, w - 1)[:, None, :]]

    if nearest:
        out = at(np.floor(y + 0.5).astype(int), np.floor(z + 0.5).astype(int))
    else:
        i, j = np.floor(y).astype(int), np.floor(z).astype(int)
        fy, fz = (y - i).astype(np.float32)[:, :, None, None], (z - j).astype(np.float32)[:, None, :, None]
        out = (at(i, j) * (1 - fz) + at(i, j + 1) * fz) * (1 - fy) + (at(i + 1, j) * (1 - fz) + at(i + 1, j + 1) * fz) * fy
    if pad_value is not None:
        outside = ((y < -0.5) | (y > h - 0.5))[:, :, None] | ((z < -0.5) | (z > w - 0.5))[:, None, :]
        out[outside] = pad_value
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2), np.float32)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("pad", [None, 7.0])
def test_resizing_is_numpys(kind, nearest, pad):
    for shape, height, width in [((5, 3, 13, 17), 9, 11), ((2, 1, 1, 1), 4, 3), ((3, 3, 6, 5), 1, 1), ((1, 3, 4, 4), 8, 8)]:
        x = (RNG.random(shape) * 255).astype(kind)
        n, c, h, w = shape
        window = np.stack([RNG.uniform(-3, h, n), RNG.uniform(-3, w, n), RNG.uniform(1, h + 3, n), RNG.uniform(1, w + 3, n)], 1)
        flip = RNG.random(n) < 0.5
        out = np.empty((n, c, height, width), np.float32)
        native.resize(x, window, out, nearest=nearest, pad=pad, flip=flip)
        want = resample(x.astype(np.float32), window, height, width, nearest, pad)
        assert np.array_equal(out, np.where(flip[:, None, None, None], want[..., ::-1], want))
        native.resize(
            np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), window, out, nearest=nearest, pad=pad, flip=flip
        )
        assert np.array_equal(out, np.where(flip[:, None, None, None], want[..., ::-1], want))


@given(shape=st.tuples(*[st.integers(1, 9)] * 4), pad=st.integers(0, 5), flip=st.booleans(), fill=st.sampled_from([0.0, 7.0]),
       order=st.sampled_from(["c", "n", "cn", "nc", "ncn", "cc", ""]), bytes_=st.booleans(), image=st.booleans(),
       seed=st.integers(0, 2**64 - 1), sweep=st.integers(0, 2**40), data=st.data())  # fmt: skip
def test_the_native_loop_is_numpys(shape, pad, flip, fill, order, bytes_, image, seed, sweep, data):
    n, c, h, w = shape
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, shape, dtype=np.uint8) if bytes_ else rng.normal(size=shape).astype(np.float32)
    window = data.draw(st.none() | st.tuples(st.integers(1, h + 2 * pad), st.integers(1, w + 2 * pad)))
    here, made = (c, h, w), []
    for letter in order:
        if letter == "c":
            made.append(T.pad_crop_flip(pad, flip, fill, window if len(made) < 2 else None))
        else:
            made.append(
                T.normalize(rng.normal(size=here if image else c).astype(np.float32), rng.normal(size=c).astype(np.float32))
            )
        try:
            here = made[-1].shape_of(here)
        except ValueError:
            return  # a second window that does not fit the first
    assert np.array_equal(through(x, made, seed=seed, sweep=sweep), numpys(x, made, seed, sweep))


def test_after_normalize_fill_is_in_its_units():
    x = np.full((200, 1, 4, 4), 200, np.uint8)
    after = through(x, [T.normalize(100, 0.5), T.pad_crop_flip(2)])
    before = through(x, [T.pad_crop_flip(2), T.normalize(100, 0.5)])
    assert set(np.unique(after)) == {0, 50} and set(np.unique(before)) == {-50, 50}


def test_every_window_and_both_sides_come_up_evenly():
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8).repeat(8000, 0)
    corner = through(x, [T.pad_crop_flip(0, True, size=6)])[:, 0, 0, [0, -1]]
    counts = np.unique(corner, axis=0, return_counts=True)[1]
    assert len(counts) == 18 and np.abs(counts - 8000 / 18).max() < 5 * np.sqrt(8000 / 18)


def test_random_numbers_belong_to_sample_and_sweep():
    x = RNG.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    made = [T.pad_crop_flip(4), T.color(0.2, 0.2, 0.2)]
    reader = ArrayDeserializer({"x": x}, StreamDefs(x=StreamDef(transforms=made)))
    whole = reader.read(np.arange(50), np.zeros(50, np.int64), 1, Ring().take)["x"]
    some = np.array([30, 7, 49, 7])
    assert np.array_equal(reader.read(some, np.zeros(4, np.int64), 1, Ring().take)["x"], whole[some])
    for seed, sweep in [(2, 0), (1, 1)]:
        assert not np.array_equal(reader.read(some, np.full(4, sweep), seed, Ring().take)["x"], whole[some])
    table = native.random_table(1, 2, np.arange(3), np.arange(3), 2)
    expected = np.random.Philox(key=[1, 2], counter=[0, 2, 2, 0]).random_raw(8)
    assert np.array_equal(table[2], expected)


def test_double_precision_and_shape():
    x = RNG.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    assert np.array_equal(through(x, [T.normalize(1, 2)], np.float64, shape=48), ((x.astype(np.float64) - 1) * 2).reshape(5, 48))
    y = RNG.normal(size=(5, 4))
    assert np.array_equal(through(y, [], np.float64), y)  # not by way of float32
    assert np.array_equal(through(y.astype(np.float32), []), y.astype(np.float32))
    assert np.array_equal(through(np.arange(5) + 2**40, [], np.float64), np.arange(5) + 2.0**40)
    assert through(x[:0], [T.pad_crop_flip(1)]).shape == (0, 3, 4, 4)


def test_one_hot():
    labels = np.array([2, 0, 1], np.uint8)
    assert np.array_equal(through(labels, [], shape=3), np.eye(3)[labels])
    assert np.array_equal(through(labels[:, None], [T.one_hot(4)]), np.eye(4)[labels])
    assert np.array_equal(through(labels, []), labels)
    with pytest.raises(DataError, match=r"expected labels in \[0, 2\), got 2 at sample 0"):
        through(labels, [], shape=2)


def test_center_crop_and_scale():
    x = RNG.integers(0, 256, (4, 3, 8, 6), dtype=np.uint8)
    assert np.array_equal(through(x, [T.crop(crop_size=4)]), x[:, :, 2:6, 1:5])
    assert np.array_equal(through(x, [T.crop(crop_size=(2, 6))]), x[:, :, 1:7, 2:4])
    assert np.array_equal(through(x, [T.crop(side_ratio=0.5)]), x[:, :, 2:5, 1:4])
    assert np.array_equal(through(x, [T.scale(6, 8, 3)]), x)
    assert np.array_equal(through(x, [T.scale(12, 16, 3, "nearest")]), x.repeat(2, 2).repeat(2, 3))
    half = x.reshape(4, 3, 4, 2, 3, 2).astype(np.float32).mean((3, 5))
    np.testing.assert_allclose(through(x, [T.scale(3, 4, 3)]), half, rtol=1e-6)
    assert np.array_equal(through(x, [T.scale(6, 6, 3, scale_mode="crop")]), x[:, :, 1:7])
    padded = through(x, [T.scale(8, 8, 3, "nearest", "pad", 9)])
    assert np.array_equal(padded[..., 1:7], x) and (padded[..., [0, 7]] == 9).all()
    border = through(x, [T.scale(8, 8, 3, "nearest", "pad")])
    assert np.array_equal(border[..., 0], x[..., 0]) and np.array_equal(border[..., 7], x[..., 5])


def test_random_crops_lie_inside_and_mirror():
    ramp = np.arange(20.0, dtype=np.float32)
    x = np.broadcast_to(ramp, (400, 1, 20, 20)).copy()
    out = through(x, [T.crop("randomside", side_ratio=(0.4, 0.9), jitter_type="uniratio"), T.scale(5, 5, 1)])
    assert out.shape == (400, 1, 5, 5) and out.min() >= 0 and out.max() <= 19
    slope = out[:, 0, 0, 4] - out[:, 0, 0, 0]
    assert 120 < (slope < 0).sum() < 280  # mirrored
    assert np.abs(slope).min() >= 0.4 * 20 * 0.8 - 1 and np.abs(slope).max() <= 0.9 * 20 * 0.8 + 1
    fixed = through(x, [T.crop("randomarea", area_ratio=0.25)])
    assert fixed.shape == (400, 1, 10, 10) and set(np.abs(np.diff(fixed, axis=3)).ravel()) == {1}
    wide = through(x, [T.crop("randomarea", area_ratio=0.25, aspect_ratio=(0.5, 1), jitter_type="uniratio"), T.scale(4, 4, 1)])
    assert wide.shape == (400, 1, 4, 4)


def test_color():
    x = RNG.integers(0, 256, (300, 3, 4, 4), dtype=np.uint8).astype(np.float32)
    assert np.array_equal(through(x, [T.color()]), x)
    mean = x.mean((1, 2, 3))
    bright = through(x, [T.color(brightness_radius=0.2)])
    shift = (bright - x).mean((1, 2, 3)) / mean
    assert np.abs(shift).max() <= 0.2001 and shift.std() > 0.09
    contrast = through(x, [T.color(contrast_radius=0.3)])
    ratio = contrast.sum((1, 2, 3)) / x.sum((1, 2, 3))
    assert 0.6999 <= ratio.min() < 0.75 and 1.25 < ratio.max() <= 1.3001
    grey = through(x, [T.color(saturation_radius=1)])
    np.testing.assert_allclose(grey.max(1) + grey.min(1), x.max(1) + x.min(1), rtol=1e-4, atol=1e-3)


def test_mean_images(tmp_path):
    image = RNG.uniform(0, 255, (3, 4, 4)).astype(np.float32)
    np.save(tmp_path / "m.npy", image)
    text = " ".join(f"{v:.9e}" for v in image.ravel())
    (tmp_path / "m.xml").write_text(
        "<?xml version='1.0'?><opencv_storage><Channel>3</Channel><Row>4</Row><Col>4</Col>"
        f"<MeanImg type_id='opencv-matrix'><rows>1</rows><cols>48</cols><dt>f</dt><data>{text}</data></MeanImg></opencv_storage>"
    )
    x = RNG.integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    for source in (image, tmp_path / "m.npy", str(tmp_path / "m.xml")):
        assert np.array_equal(through(x, [T.mean(source)]), x - image)
    for name, content, said in [("a.xml", "<x", "to be a .npy or OpenCV XML"), ("b.xml", "<x/>", "to be a .npy or OpenCV XML")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=said):
            T.mean(tmp_path / name)
    with pytest.raises(DataError, match="expected a mean image, got no file"):
        T.mean(tmp_path / "none.xml")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: T.crop("multiview10", 3), "expected crop_type center, randomside or randomarea, got 'multiview10'"),
        (lambda: T.crop(), "expected a crop_size, side_ratio or area_ratio, got none"),
        (lambda: T.crop(side_ratio=(0.9, 0.4)), "expected side_ratio to be a number or (low, high) from 0 up"),
        (lambda: T.crop(crop_size=3, jitter_type="x"), "expected jitter_type 'none' or 'uniratio', got 'x'"),
        (lambda: through(GREY, [T.crop("randomside", side_ratio=(0.4, 0.9), jitter_type="uniratio")]),
         "stream 'x': transforms.crop: expected a scale right after a crop whose size is drawn, got none"),
        (lambda: through(GREY, [T.crop(crop_size=5)]), "expected a window inside 4 x 4, got 5 x 5"),
        (lambda: T.scale(3, 3, 3, "cubic"), "expected interpolations 'nearest' or 'linear', got 'cubic'"),
        (lambda: T.scale(3, 3, 3, scale_mode="x"), "expected scale_mode 'fill', 'crop' or 'pad', got 'x'"),
        (lambda: T.scale(0, 3, 3), "expected a width and height of 1 or more, got 0 and 3"),
        (lambda: through(GREY, [T.scale(3, 3, 3)]), "expected images of 3 channels, got 1"),
        (lambda: T.color(2), "expected brightness_radius in [0, 1], got 2"),
        (lambda: through(GREY, [T.color(saturation_radius=0.1)]), "expected images of 3 channels to change their saturation"),
        (lambda: through(RGB, [T.normalize([1, 2])]), "expected mean to be a number, (3,) or (3, 4, 4), got (2,)"),
        (lambda: through(RGB, [T.pad_crop_flip(1, size=7)]), "expected a window inside 4 x 4 with 1 around it, got 7 x 7"),
        (lambda: through(np.zeros((1, 3)), [T.one_hot(3)]), "expected one label a sample, got samples of shape (3,)"),
    ],
)  # fmt: skip
def test_errors(make, said):
    with pytest.raises(ValueError) as e:
        make()
    assert said in str(e.value)


def test_augmented_batches_of_a_source_do_not_depend_on_ranks():
    x = RNG.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    reader = ArrayDeserializer({"x": x}, StreamDefs(x=StreamDef(transforms=[T.pad_crop_flip(2)])))
    with MinibatchSource(reader, prefetch=0) as alone:
        whole = np.concatenate([np.asarray(alone.next_minibatch(8)[alone.streams.x]) for _ in range(9)])
    parts = np.empty_like(whole)
    for rank in range(3):
        with MinibatchSource(reader) as s:
            parts[rank::3] = np.concatenate(
                [np.asarray(s.next_minibatch(24, num_data_partitions=3, partition_index=rank)[s.streams.x]) for _ in range(3)]
            )
    assert np.array_equal(parts, whole)
