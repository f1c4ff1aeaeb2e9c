"""`NDArrayView` and `Value`: memory with a shape, sequences of a minibatch, results without copies; facts of CNTK 2.7 beside our own rules."""

import numpy as np
import pytest
import scipy.sparse

import cogkit as C

F2, F4, F8 = np.float16, np.float32, np.float64
A = np.arange(6, dtype=F4).reshape(2, 3)
CSR = scipy.sparse.csr_matrix(np.array([[1, 0, 2], [0, 3, 0]], F4))
V = C.NDArrayView


def same(got, want):
    np.testing.assert_array_equal(got.toarray() if hasattr(got, "toarray") else got, want)


# views ---------------------------------------------------------------------------------------------------------------------------


def test_the_memory_of_an_array_stands_for_its_shape():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert C.parameter(a.data, init=a).shape == (2, 3) and C.input_variable(a[0].data).shape == (3,)


def test_a_view_of_a_shape_is_zero():
    v = V((2, 3), F8)
    assert v.shape == (2, 3) and v.dtype == F8 and not v.is_sparse and not v.is_read_only and v.is_valid
    assert str(v) == "NDArrayView([2 x 3], CPU)" and str(v.device) == "CPU" and v.get_storage_format() == "dense"
    same(v.asarray(), np.zeros((2, 3)))


def test_from_dense_copies_or_borrows():
    a = A.copy()
    copied, borrowed = V.from_dense(a), V.from_dense(a, borrow=True)
    a[0, 0] = 9
    assert copied.asarray()[0, 0] == 0 and borrowed.asarray()[0, 0] == 9
    borrowed.set_value(5)
    assert (a == 5).all()


@pytest.mark.parametrize("dtype", [F2, F4, F8, np.int8, np.int16])
def test_from_data_takes_the_types_of_values(dtype):
    assert V.from_data(A.astype(dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (lambda: V.from_dense([1, 2]), TypeError, "expected a NumPy array, got list"),
        (lambda: V.from_dense(A.astype(int)), TypeError, "got int64"),
        (lambda: V.from_dense(A.T, borrow=True), ValueError, "expected an array row by row to borrow"),
        (lambda: V.from_csr(A), TypeError, "expected a CSR matrix, got ndarray"),
        (lambda: V.from_csr(CSR.tocsc()), TypeError, "expected a CSR matrix, got csc_matrix"),
        (lambda: V.from_csr(CSR, shape=(3, 1, 3)), ValueError, r"expected a shape of 2 rows with 3 in the last axis, got \(3, 1, 3\)"),
        (lambda: V.from_dense(A).slice_view((0, 1), (2, 2)), ValueError, r"expected a part of \(2, 3\) in one piece"),
        (lambda: V.from_dense(A).slice_view((1, 0), (2, 3)), ValueError, r"expected a part of \(2, 3\), got \[2, 3\] from \[1, 0\] on"),
        (lambda: V.from_dense(A).slice_view((1,), (3,)), ValueError, "expected 2 offsets and at most as many sizes"),
        (lambda: V.from_dense(A).as_shape((3, 3)), ValueError, r"expected a shape of 6 elements, got \(3, 3\)"),
        (lambda: V.from_csr(CSR).as_shape((3, 2)), ValueError, "as sparse arrays keep it"),
        (lambda: V.from_csr(CSR).slice_view((0, 1), (1, 2)), ValueError, "expected whole rows of 3"),
        (lambda: V((3, 2)).copy_from(V.from_dense(A)), ValueError, r"expected a view of shape \(3, 2\), got \(2, 3\)"),
        (lambda: V((2, 3), F8).copy_from(V.from_dense(A)), TypeError, "expected float64, got float32"),
        (lambda: V.from_dense(A, read_only=True).set_value(1), ValueError, "got a read-only one; write to a deep_clone"),
        (lambda: V.from_csr(CSR).set_value(1), TypeError, "expected a dense array, got a sparse one"),
        (lambda: V((2,), F4, C.device.DeviceDescriptor(C.device.DeviceKind.GPU, 0)), C.DeviceError, "expected a device that is there"),
    ],
)  # fmt: skip
def test_wrong_uses_of_views(use, kind, message):
    with pytest.raises(kind, match=message):
        use()


def test_slices_share_memory_and_drop_leading_axes():
    v = V.from_dense(A)
    row = v.slice_view((1, 0), (3,), read_only=False)
    assert row.is_slice_view() and not v.is_slice_view()
    same(row.asarray(), [3, 4, 5])
    row.set_value(7)
    same(v.asarray(), [[0, 1, 2], [7, 7, 7]])
    same(v.slice_view((0, 1), (1, 2)).asarray(), [[1, 2]])
    assert v.slice_view((0, 2), ()).asarray() == 2
    assert v.slice_view((0, 0), (2, 3)).is_read_only


def test_sparse_views():
    v = V.from_csr(CSR)
    assert v.is_sparse and v.get_storage_format() == "sparse_csr"
    assert scipy.sparse.issparse(v.asarray())
    same(v.slice_view((1, 0), (1, 3)).asarray(), [[0, 3, 0]])
    deep = v.as_shape((1, 2, 3))
    assert deep.is_sparse
    same(deep.asarray(), [CSR.toarray()])
    w = V((2, 3))
    w.copy_from(v)
    same(w.asarray(), CSR.toarray())
    v.copy_from(V.from_dense(A))
    same(v.asarray(), A)
    same(v.deep_clone().asarray(), A)


def test_copies_and_aliases():
    v = V.from_dense(A)
    alias, clone = v.alias(), v.deep_clone(read_only=True)
    v.set_value(2)
    assert (alias.asarray() == 2).all() and clone.is_read_only
    same(clone.asarray(), A)
    same(np.asarray(clone), A)
    assert v.alias(read_only=True).is_read_only


def test_random_views_repeat():
    a, b = (V.random_uniform_float((3, 4), -1, 2, seed).asarray() for seed in (1, 1))
    same(a, b)
    assert a.dtype == F4 and a.min() >= -1 and a.max() < 2 and a.std() > 0.5
    assert V.random_uniform_double((3,), 0, 1, 1).dtype == F8


# values --------------------------------------------------------------------------------------------------------------------------

SEQUENCE = C.sequence.input_variable(3)
BATCH = C.input_variable(3)
PLAIN = C.input_variable(3, dynamic_axes=[])


def test_a_value_of_an_array():
    v = C.Value(V.from_dense(A))
    assert v.shape == (2, 3) and v.dtype == F4 and v.mask is None and len(v) == 2 and v.masked_count() == 0
    assert str(v) == "Value([2 x 3], CPU)"
    for got, want in zip(v.as_sequences(), A, strict=True):
        same(got, want)
    same(C.Value(A).asarray(), A)
    same(C.Value(CSR).asarray(), CSR.toarray())


def test_sequences_of_equal_length_with_flags():
    v = C.Value(A.reshape(2, 3, 1), [True, False])
    same(v.mask, [[2, 1, 1], [1, 1, 1]])
    assert v.shape == (2, 3, 1) and [s.shape for s in v.as_sequences()] == [(3, 1)] * 2


def test_a_list_of_sequences():
    v = C.Value.create(SEQUENCE, [A, A[:1]], [True, False], read_only=True)
    assert v.shape == (2, 2, 3) and v.is_read_only and v.masked_count() == 1 and len(v) == 2
    same(v.mask, [[2, 1], [1, 0]])
    assert v.mask.dtype == np.int8
    same(v.asarray(), [A, [A[0], [0, 0, 0]]])
    same(v.data.asarray(), v.asarray())
    assert v.data.is_read_only
    same(v.as_sequences()[1], A[:1])


@pytest.mark.parametrize(
    ("variable", "data", "shape"),
    [
        (SEQUENCE, [A[0], A[1]], (2, 1, 3)),  # samples are sequences of one step
        (SEQUENCE, [[A[0]], [A[0], A[1]]], (2, 2, 3)),
        (SEQUENCE, [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]], (2, 2, 3)),
        (SEQUENCE, A, (2, 3)),  # an array stays as it is
        (BATCH, [A[0], A[1]], (2, 1, 3)),
        (BATCH, A, (2, 3)),
        (PLAIN, [A[0], A[1]], (2, 3)),
        (PLAIN, A[0], (3,)),
        (SEQUENCE, [CSR, CSR[:1]], (2, 2, 3)),
        (BATCH, [CSR, CSR], (2, 2, 3)),
        (PLAIN, CSR[:1], (1, 3)),
    ],
)
def test_shapes_as_in_cntk(variable, data, shape):
    assert C.asvalue(variable, data).shape == shape


@pytest.mark.parametrize("data", [[[A[0]], [A[0], A[1]]], [CSR]])
def test_a_variable_without_axes_takes_no_ragged_or_sparse_list(data):
    with pytest.raises(ValueError, match=r"expected an array of shape \(3,\), as it has no batch axis, got a list of"):
        C.Value.create(PLAIN, data)


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (lambda: C.Value([A]), TypeError, r"Value.create\(variable, \[...\]\) takes lists"),
        (lambda: C.Value(C.Value(A)), TypeError, "it is one already"),
        (lambda: C.Value(A[0], [True]), ValueError, "expected sequences of steps beside flags"),
        (lambda: C.Value(A.reshape(2, 3, 1), [True]), ValueError, "expected one flag a sequence, got 1 for 2"),
        (lambda: C.Value.create(SEQUENCE, [A.T]), ValueError, r"expected sequences of shape \(steps, 3\), got \(3, 2\) as sequence 0"),
        (lambda: C.Value.create(SEQUENCE, [A, A], [True]), ValueError, "expected one flag a sequence, got 1 for 2"),
        (lambda: C.Value.create(SEQUENCE, C.Value(A), [True]), ValueError, "flags of new sequences beside arrays"),
        (lambda: C.Value.one_hot([[1.0, 2.0], [3.0]], 4), ValueError, "expected whole numbers of classes, got float64"),
        (lambda: C.Value.one_hot([[0, -1]], 4), ValueError, r"expected classes in \[0, 4\), got -1"),
        (lambda: C.Value.one_hot([[0, 1, 2]], (2, 3)), ValueError, "expected sequences of a multiple of 2 numbers"),
        (lambda: C.Value.one_hot([[0]], 3, F2), TypeError, "expected float32 or float64, got float16"),
        (lambda: len(C.Value(np.array(1, F4))), TypeError, "got a number"),
        (lambda: C.Value(A).copy_from(C.Value(A.T)), ValueError, r"expected a Value of shape \(2, 3\) and the same lengths"),
        (lambda: C.asarray(object()), ValueError, "expected numbers, got object"),
    ],
)  # fmt: skip
def test_wrong_uses_of_values(use, kind, message):
    with pytest.raises(kind, match=message):
        use()


def test_one_hot_values():
    v = C.Value.one_hot([[0, 1], [2]], 3, F8)
    assert v.is_sparse and v.dtype == F8 and v.shape == (2, 2, 3)
    same(v.mask, [[2, 1], [2, 0]])
    same(v.as_sequences()[0], np.eye(3)[[0, 1]])
    assert C.Value.one_hot([0, 1, 2], 3).shape == (3, 3) and C.Value.one_hot([0, 1], 3).mask is None
    assert C.Value.one_hot(np.array([[0, 1], [1, 2]]), 3).shape == (2, 2, 3)
    same(C.Value.one_hot([[0, C.Value.ONE_HOT_SKIP]], 3).as_sequences()[0], [[1, 0, 0], [0, 0, 0]])


def test_one_hot_values_of_more_axes():
    v = C.Value.one_hot([[0, 1, 0, 1], [2, 1]], (2, 3))
    assert v.shape == (2, 2, 2, 3)
    eye = np.eye(3, dtype=F4)
    same(v.asarray(), [[eye[[0, 1]], eye[[0, 1]]], [eye[[2, 1]], np.zeros((2, 3))]])
    same(v.data.asarray(), v.asarray())
    x = C.sequence.input_variable((2, 3), is_sparse=True)
    for got, want in zip(C.times(x, np.eye(3, dtype=F4)).eval({x: v}), ([eye[[0, 1]], eye[[0, 1]]], [eye[[2, 1]]]), strict=True):
        same(got, want)


def test_copies_of_values():
    v = C.Value.create(SEQUENCE, [A, A[:1]])
    clone = v.deep_clone()
    v.copy_from(C.Value.create(SEQUENCE, [A + 1, A[:1] + 1]))
    same(v.as_sequences()[0], A + 1)
    same(clone.as_sequences()[0], A)
    alias = v.alias(read_only=True)
    assert alias.is_read_only
    v.erase()
    assert not v.is_valid and alias.is_valid
    with pytest.raises(RuntimeError, match="expected the result of the last run"):
        v.asarray()


# feeds ---------------------------------------------------------------------------------------------------------------------------

FEEDS = {
    "arrays": [A, A[:1]],
    "views": [V.from_dense(A), V.from_dense(A[:1])],
    "value": C.Value.create(SEQUENCE, [A, A[:1]]),
    "sparse views": [V.from_csr(scipy.sparse.csr_matrix(A)), V.from_csr(scipy.sparse.csr_matrix(A[:1]))],
    "minibatch": C.io.MinibatchData(C.Value.create(SEQUENCE, [A, A[:1]]), 2, 3, False),
}


@pytest.mark.parametrize("name", FEEDS)
def test_sequences_are_fed_in_all_forms(name):
    got = (SEQUENCE * 2).eval({SEQUENCE: FEEDS[name]})
    same(got[0], 2 * A)
    same(got[1], 2 * A[:1])


@pytest.mark.parametrize(
    "data",
    [A, V.from_dense(A), C.Value(A), [A[0], A[1]], A.reshape(2, 1, 3), C.Value.create(BATCH, [A[0], A[1]]), V.from_csr(scipy.sparse.csr_matrix(A)),
     [V.from_dense(A[0]), V.from_dense(A[1])], C.io.MinibatchData(C.Value(A), 2, 2, False)],
)  # fmt: skip
def test_batches_are_fed_in_all_forms(data):
    same((BATCH * 2).eval({BATCH: data}), 2 * A)


def test_a_padded_view_is_sequences_of_equal_length():
    got = (SEQUENCE * 2).eval({SEQUENCE: V.from_dense(A.reshape(2, 1, 3))})
    assert [g.shape for g in got] == [(1, 3), (1, 3)]


def test_flags_beside_an_array_make_each_entry_a_sequence():
    same(C.sequence.last(SEQUENCE).eval({SEQUENCE: A}), [A[1]])
    same(C.sequence.last(SEQUENCE).eval({SEQUENCE: (A, [True, True])}), A)


@pytest.mark.parametrize("variable", [SEQUENCE, BATCH])
def test_flags_beside_a_value_are_refused(variable):
    with pytest.raises(ValueError, match="a Value|flags of new sequences"):
        (variable * 2).eval({variable: (C.Value.create(variable, [A[0], A[1]]), [True, True])})


def test_samples_without_their_axes_are_refused():
    x = C.input_variable(1)
    with pytest.raises(ValueError, match=r"expected samples of shape \(1,\), got arrays without axes"):
        (x + 1).eval({x: [np.asarray(2)]})


def test_values_of_variables():
    w = C.parameter((3,))
    for new in (V.from_dense(A[0]), C.Value(A[0]), A[0], V.from_dense(A).slice_view((0, 0), (3,))):
        w.set_value(0)
        w.set_value(new)
        same(w.value, A[0])
    same(C.parameter(init=V.from_dense(A)).value, A)
    same(C.constant(C.Value(A)).value, A)
    same(C.asarray(w), A[0])


# results without copies ------------------------------------------------------------------------------------------------------------

F = BATCH * 3


def test_results_are_valid_until_the_next_run():
    first = F.eval({BATCH: A}, as_numpy=False)
    assert isinstance(first, C.Value) and first.is_valid
    same(first.asarray(), 3 * A)
    held, copied = first.data, first.deep_clone()
    F.eval({BATCH: A})  # another call: its memory is another one
    assert first.is_valid
    second = F.eval({BATCH: A + 1}, as_numpy=False)
    assert not first.is_valid and second.is_valid and first.shape == (2, 3) and first.dtype == F4
    for read in (first.asarray, first.as_sequences, held.asarray, first.deep_clone, lambda: F.eval({BATCH: first})):
        with pytest.raises(RuntimeError, match="got one of a run before, whose memory is in use again; keep a deep_clone"):
            read()
    assert repr(first) == "Value(of a run before)"
    same(copied.asarray(), 3 * A)


def test_results_are_not_copied():
    first, second = (F.eval({BATCH: A}, as_numpy=False) for _ in range(2))
    assert first._view._array.ctypes.data == second._view._array.ctypes.data


def test_results_of_sequences_are_fed_back_as_they_lie():
    x = C.sequence.input_variable(3, needs_gradient=True)
    f, g = x * 2, C.sequence.reduce_sum(x + 1)
    value = f.eval({x: [A, A[:1]]}, as_numpy=False)
    assert value.shape == (2, 2, 3)
    same(value.as_sequences()[0], 2 * A)
    same(g.eval({x: value}), [(2 * A + 1).sum(0), 2 * A[0] + 1])
    from cogkit.engine.feeds import bind_feeds

    assert bind_feeds({x: value})[0][x] is value._rows
    grad = g.grad({x: [A, A[:1]]}, as_numpy=False)
    same(grad.as_sequences()[1], np.ones((1, 3)))
    same((x + 1).eval({x: grad})[0], np.full((2, 3), 2))


def test_a_call_may_be_fed_its_own_result():
    """Its memory is both read and written: the feed is put aside."""
    x = C.input_variable(64)
    f = C.reduce_sum(x, 0) + x  # each element needs all of them
    want = value = np.random.default_rng(0).uniform(-1, 1, (3, 64)).astype(F4)
    for _ in range(4):
        want = f.eval({x: want}) / 64
        value = f.eval({x: value}, as_numpy=False)
        value = C.Value(value.asarray() / 64)
    np.testing.assert_allclose(value.asarray(), want, rtol=1e-5)
    value = f.eval({x: np.ones((1, 64), F4)}, as_numpy=False)
    for k in range(1, 3):
        value = f.eval({x: value}, as_numpy=False)
        same(value.asarray(), np.full((1, 64), 65.0 ** (k + 1)))


def test_forward_backward_and_grad_without_copies():
    x = C.input_variable(3, needs_gradient=True)
    w = C.parameter(init=A.T)
    f = C.times(x, w)
    state, values = f.forward({x: A}, [f.output], [f.output], as_numpy=False)
    same(values[f.output].asarray(), A @ A.T)
    grads = f.backward(state, {f.output: values[f.output]}, [x, w], as_numpy=False)
    same(grads[x].asarray(), A @ A.T @ A)
    assert isinstance(grads[w], C.Value) and grads[w].shape == (3, 2)
    gradients, found = f.grad({x: A}, [w], [f.output], as_numpy=False)
    assert isinstance(gradients, C.Value) and isinstance(found, C.Value)
    w.value = gradients.data
    same(w.value, np.repeat(A.sum(0)[:, None], 2, 1))


def test_results_of_a_loop_can_be_kept_by_cloning():
    kept = [F.eval({BATCH: A + i}, as_numpy=False).deep_clone() for i in range(3)]
    for i, v in enumerate(kept):
        same(v.asarray(), 3 * (A + i))
