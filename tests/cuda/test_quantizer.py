"""Gradients in few bits and products of signs on the CUDA engine: the CPU's bits."""

from types import SimpleNamespace

import numpy as np
import pytest
from cuda.plans import commands, in_orders

from cogkit.engine.cuda.bits import sign_words, signs_packed, signs_times
from cogkit.engine.cuda.device import device
from cogkit.engine.cuda.driver import B
from cogkit.engine.cuda.quantizer import Quantizer
from cogkit.engine.cuda.table import Call, i64
from cogkit.parallel.quantize import Columns, column_sizes, pack, unpack

F4, F8 = np.float32, np.float64
SIZES = (1, 2, 31, 32, 33, 64, 100, 700)


def drawn(dtype):
    """Values with what is hard among them: a column of zeros, one of equal values, halves, infinities, NaN."""
    rng = np.random.default_rng(3)
    at, columns = 0, []
    for n in (*SIZES, 33, 40, 35, 34):
        columns.append((at, n))
        at += n + 3  # some belong to no column
    values, residual = (rng.normal(size=at).astype(dtype) for _ in range(2))
    for k, value in ((-4, 0), (-3, 0.25)):
        first, n = columns[k]
        values[first : first + n], residual[first : first + n] = value, 0
    values[columns[-2][0] + 7], values[columns[-1][0] + 5] = np.inf, np.nan
    return columns, values, residual


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_the_bits_of_the_cpu(bits, dtype, zero):
    places, values, residual = drawn(dtype)
    if dtype == F8 and bits > 1:  # NumPy's whole numbers of NaN are the machine's
        values[~np.isfinite(values)] = 1
    columns = Columns(places, bits, dtype)
    message, kept = columns.message(), residual.copy()
    message.fill(0)
    pack(columns, zero, values, kept, message)
    whole, added = np.zeros_like(values), values.copy()
    unpack(columns, message, whole)
    unpack(columns, message, added, add=True)
    d, quantizer = device(), Quantizer(columns)

    def run():
        with d.active():
            v, r, w, a = (d.alloc(values.nbytes) for _ in range(4))
            for memory, array in ((v, values), (r, residual), (w, np.zeros_like(values)), (a, values)):
                d.write(memory.address, array)
            made = quantizer.message()
            d.write(made.address, np.zeros(columns.nbytes, np.uint8))
            quantizer.pack(zero, v, r, made)
            quantizer.unpack(made, w)
            quantizer.unpack(made, a, add=True)
            found = [d.read(m.address, values.shape, dtype) for m in (r, w, a)]
            return [*found, d.read(made.address, message.shape, np.uint8)]

    got = in_orders(run)
    for fact, wish in zip(got[:3], (kept, whole, added), strict=True):
        np.testing.assert_array_equal(fact, wish)  # NaN's own bits are the machine's
    levels, words = columns.parts(message)
    found = columns.parts(got[-1])
    np.testing.assert_array_equal(found[0], levels)
    np.testing.assert_array_equal(found[1], words)


def test_errors_are_made_up_for():
    """What is sent over many minibatches comes to what was to be sent: sent + residual = sum of values."""
    rng, n = np.random.default_rng(0), 1500
    columns = Columns([(0, n)], 1, F4)
    d, quantizer = device(), Quantizer(columns)
    with d.active():
        v, r, total, message = d.alloc(4 * n), d.alloc(4 * n), d.alloc(4 * n), quantizer.message()
        for m in (r, total):
            d.write(m.address, np.zeros(n, F4))
        wish = np.zeros(n)
        for _ in range(5):
            x = rng.normal(size=n).astype(F4)
            wish += x
            d.write(v.address, x)
            quantizer.pack(False, v, r, message)
            quantizer.unpack(message, total, add=True)
        np.testing.assert_allclose(d.read(total.address, (n,), F4) + d.read(r.address, (n,), F4), wish, atol=1e-5)


def test_no_columns():
    quantizer = Quantizer(Columns([], 1, F4))
    nothing = SimpleNamespace(address=0)
    quantizer.pack(False, nothing, nothing, nothing)
    quantizer.unpack(nothing, nothing)


def test_columns_of_a_layer():
    n = 3 * 1100
    columns = Columns(zip(range(0, n, 1100), column_sizes((3, 1100)), strict=True), 4, F4)
    x, kept, message = np.linspace(-1, 1, n, dtype=F4), np.zeros(n, F4), columns.message()
    pack(columns, False, x, kept, message)
    d, quantizer = device(), Quantizer(columns)
    with d.active():
        v, r, made = d.alloc(x.nbytes), d.alloc(x.nbytes), quantizer.message()
        d.write(v.address, x)
        d.write(r.address, np.zeros(n, F4))
        quantizer.pack(False, v, r, made)
        assert d.read(made.address, message.shape, np.uint8).tobytes() == message.tobytes()


# signs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (3, 5, 31), (2, 7, 32), (65, 3, 70), (5, 66, 600), (4, 3, 0)])
def test_products_of_signs(m, n, k, dtype):
    rng = np.random.default_rng(k)
    x, z = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(n, k)).astype(dtype)
    x[:, ::7] = 0  # counts as positive
    signs = [np.where(v >= 0, 1, -1) for v in (x, z)]
    scales = [np.abs(v).mean(1) if k else np.zeros(len(v)) for v in (x, z)]
    W, t = sign_words(k), "f4" if dtype == F4 else "f8"
    arrays = [x, z, np.zeros((m, W), np.uint32), np.zeros((n, W), np.uint32), np.zeros(m, dtype), np.zeros(n, dtype)]
    arrays += [np.zeros((m, n), dtype)] * 2

    def make():
        a, b, p, q = B(2), B(3), B(4), B(5)
        items = [signs_packed(B(0), a, p, m, k, t), signs_packed(B(1), b, q, n, k, t)]
        items += [signs_times(a, p, b, q, B(6), m, n, k, t), signs_times(a, i64(0), b, i64(0), B(7), m, n, k, t)]
        return Call(8, items)

    found = commands(make, *arrays)
    if k:
        bits = np.unpackbits(found[2].view(np.uint8), axis=1, bitorder="little")[:, :k]
        np.testing.assert_array_equal(bits, x >= 0)
    for fact, wish in zip(found[4:6], scales, strict=True):
        np.testing.assert_allclose(fact, wish, rtol=1e-5)
    np.testing.assert_array_equal(found[7], signs[0] @ signs[1].T)
    np.testing.assert_allclose(found[6], np.outer(*scales) * (signs[0] @ signs[1].T), rtol=1e-5)
