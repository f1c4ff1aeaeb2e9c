"""Fashion-C32: the native generator beside its reference, by image, by split; its bytes are those of its version."""

import hashlib

import numpy as np

from cogkit.data import native
from cogkit.data.fashion_c32 import VERSION, reference


def material(n=6):
    bits = np.random.Philox(key=[1, 2]).random_raw(100000)
    items = np.ascontiguousarray(bits[: n * 98].view(np.uint8).reshape(n, 28, 28))
    sizes = [(40, 110), (300, 400), (64, 250)]
    photos, at = [], n * 98
    for h, w in sizes:
        words = -(-h * w * 3 // 8)
        photos.append(np.ascontiguousarray(bits[at : at + words].view(np.uint8)[: h * w * 3].reshape(h, w, 3)))
        at += words
    return items, photos


def images(items, photos, seed=0, split=0, first=0):
    out = np.empty((len(items), 3, 32, 32), np.uint8)
    native.c32_images(seed, split, first, items, photos, out)
    return out


def test_native_is_the_reference():
    items, photos = material()
    for seed, split, first in [(0, 0, 0), (0, 1, 0), (5, 0, 59990), (2**64 - 1, 1, 3)]:
        got = images(items, photos, seed, split, first)
        for k, item in enumerate(items):
            assert np.array_equal(got[k], reference(item, photos, seed, split, first + k))


def test_an_image_depends_on_its_number_alone():
    items, photos = material()
    whole = images(items, photos, first=10)
    for k in range(len(items)):
        assert np.array_equal(images(items[k : k + 1], photos, first=10 + k)[0], whole[k])
    assert not np.array_equal(images(items, photos, first=11), whole)
    assert not np.array_equal(images(items, photos, seed=1, first=10), whole)


def test_train_and_test_see_other_parts_of_each_photo():
    items = np.zeros((200, 28, 28), np.uint8)  # nothing in front of the background but occluders, photos too
    photo = np.zeros((100, 300, 3), np.uint8)
    photo[:, :210, 0] = photo[:, 210:, 2] = 255
    for split, seen, unseen in ((0, 0, 2), (1, 2, 0)):
        mean = images(items, [photo], split=split).mean((0, 2, 3))
        assert mean[seen] > 170 and mean[unseen] < 60


def test_the_bytes_are_those_of_the_version():
    items, photos = material()
    digest = hashlib.sha256(images(items, photos).tobytes() + images(items, photos, split=1).tobytes()).hexdigest()
    assert {1: "22a8d3b1919d68a1178fda2236b059ec"}[VERSION] == digest[:32]  # other bytes: count VERSION up
