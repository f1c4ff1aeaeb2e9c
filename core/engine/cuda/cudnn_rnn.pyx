"""Soft link to cuDNN's recurrent stacks (its version 8 interface), as commands of a plan.

Rows of sequences lie as everywhere in cogkit: sorted by length, longest first, step by step without padding, which is the
library's packed layout. Weights are those of `optimized_rnnstack`, which are the library's own.
"""

from libc.stdint cimport int32_t
from libcpp.vector cimport vector

import numpy as np

from cogkit.engine.cuda import cudnn, libraries
from cogkit.engine.cuda.cudnn import NUMBERS as K
from cogkit.engine.cuda.cudnn import NoWay
from cogkit.engine.cuda.driver import SLOT_SCRATCH

__all__ = ["Recurrence", "Stack", "stack"]


cdef extern from "cudnn_rnn_api.h" nogil:
    ctypedef struct cg_command:
        int (*run)(const cg_command *, void *) noexcept nogil
        void *state
    cdef cppclass cg_cudnn_handle:
        void *handle
    ctypedef int (*cg_rnn_create_t)(void **) noexcept nogil
    ctypedef int (*cg_rnn_destroy_t)(void *) noexcept nogil
    ctypedef int (*cg_rnn_dropout_t)(void *, void *, float, void *, size_t, unsigned long long) noexcept nogil
    ctypedef int (*cg_rnn_set_t)(void *, int, int, int, int, int, int, int, int, int32_t, int32_t, int32_t, int32_t, void *,
                                 unsigned) noexcept nogil
    ctypedef int (*cg_rnn_set_data_t)(void *, int, int, int, int, int, const int *, void *) noexcept nogil
    ctypedef int (*cg_rnn_set_tensor_t)(void *, int, int, const int *, const int *) noexcept nogil
    ctypedef int (*cg_rnn_spaces_t)(void *, void *, int, void *, size_t *, size_t *) noexcept nogil
    ctypedef int (*cg_rnn_weights_t)(void *, void *, size_t *) noexcept nogil
    ctypedef int (*cg_rnn_part_t)(void *, void *, int32_t, size_t, const void *, int32_t, void *, void **, void *,
                                  void **) noexcept nogil
    cdef cppclass cg_recurrence:
        cg_command command
        int step "pass"
        int mode
        cg_cudnn_handle *handle
        void *rnn
        void *x_desc
        void *y_desc
        void *h_desc
        const int32_t *lengths
        size_t weights_size
        size_t workspace_size
        size_t reserve_size
        void *x
        void *y
        void *dx
        void *dy
        void *weights
        void *dw
        void *workspace
        void *reserve
    int cg_recur(const cg_command *, void *) noexcept

cdef extern from *:
    """
    static void cg_recurrence_functions(cg_recurrence *r, size_t forward, size_t data, size_t gradient) {
        r->forward = (cg_rnn_forward_t)forward, r->data = (cg_rnn_data_t)data, r->gradient = (cg_rnn_gradient_t)gradient;
    }
    """
    void cg_recurrence_functions(cg_recurrence *, size_t, size_t, size_t)

_CELLS = {"lstm": (K.LSTM, 4), "gru": (K.GRU, 3), "tanh": (K.RNN_TANH, 1), "relu": (K.RNN_RELU, 1)}
_TYPES = {"f4": (K.DATA_FLOAT, 4), "f8": (K.DATA_DOUBLE, 8), "f2": (K.DATA_HALF, 2), "b2": (K.DATA_BFLOAT16, 2)}


def stack(*arguments, **options):
    """`Stack` of the same arguments, or None where cuDNN is not there or has no such stack."""
    if not cudnn.available():
        return None
    try:
        return Stack(*arguments, **options)
    except NoWay:
        return None


cdef class _Descriptors:
    """The library's descriptors of a stack; each is destroyed by the function that belongs to it."""

    cdef vector[void *] made
    cdef vector[size_t] destroy

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.made.size()):
            (<cg_rnn_destroy_t> self.destroy[i])(self.made[i])

    cdef void *make(self, of, str kind) except NULL:
        cdef void *found = NULL
        _check((<cg_rnn_create_t> <size_t> of(f"cudnnCreate{kind}Descriptor"))(&found), f"a descriptor ({kind})")
        self.made.push_back(found)
        self.destroy.push_back(of(f"cudnnDestroy{kind}Descriptor"))
        return found


cdef int _check(int status, what) except -1:
    if status:
        raise cudnn.failed(status, what)
    return 0


cdef class Stack:
    """Recurrent layers over sequences of these lengths, longest first, whose states begin at zero.

    cell: 'lstm', 'gru' (its reset gate acts behind the product), 'tanh' or 'relu'. inputs: numbers of a step; hidden: of a
    layer's state and direction. lengths: how long the sequences are. dtype: 'f4', 'f8', 'f2' or 'b2'; tf32: float32 numbers may
    be rounded to ten bits before they are multiplied; persistent: weights stay in registers between steps, where the library can.
    scratch: bytes that each command wants in the last buffer; reserve: bytes that training keeps from forward to backward;
    weights: how many numbers the weights are. Raises `ValueError` for sizes and lengths, `NoWay` where the library has no such
    stack or lays weights in another way, `DeviceError` where it is not there.
    """

    cdef cg_recurrence call
    cdef _Descriptors descriptors
    cdef object owner
    cdef object on_device
    cdef readonly str name
    cdef readonly size_t scratch
    cdef readonly size_t reserve
    cdef readonly size_t weights

    def __init__(self, str cell, int inputs, int hidden, lengths, *, int layers=1, bidirectional=False, str dtype="f4",
                 tf32=False, persistent=False):
        cdef vector[int] sizes = [int(n) for n in lengths]
        cdef vector[int] state, strides
        cdef cg_cudnn_handle *handle
        cdef cg_rnn_set_tensor_t set_tensor
        cdef cg_rnn_weights_t measure
        cdef void *dropout
        cdef int status, count = sizes.size()
        from cogkit.engine.cuda.device import current

        if cell not in _CELLS or dtype not in _TYPES or min(inputs, hidden, layers) < 1:
            raise ValueError(f"recurrent stack: expected {', '.join(_CELLS)}, sizes of at least one and {', '.join(_TYPES)}, got "
                             f"{cell}, {inputs}, {hidden}, {layers}, {dtype}")
        if sizes.empty() or sizes.back() < 1 or list(sizes) != sorted(sizes, reverse=True):
            raise ValueError(f"recurrent stack: expected lengths of at least one, longest first, got {list(sizes)}")
        self.owner = cudnn.handle()
        handle = <cg_cudnn_handle *> <size_t> self.owner.address
        of = libraries.find("cudnn").address
        kind, directions, (number, item) = _CELLS[cell][0], 2 if bidirectional else 1, _TYPES[dtype]
        precision = K.DATA_DOUBLE if dtype == "f8" else K.DATA_FLOAT
        math_mode = K.TENSOR_OP_MATH if item == 2 else K.DEFAULT_MATH if tf32 and dtype == "f4" else K.FMA_MATH
        more = (f"x{layers}" if layers > 1 else "") + ("_both" if bidirectional else "")
        self.name = f"cudnn_{cell}_{dtype}_{inputs}x{hidden}{more}"
        self.descriptors = _Descriptors()
        dropout = self.descriptors.make(of, "Dropout")
        status = (<cg_rnn_dropout_t> <size_t> of("cudnnSetDropoutDescriptor"))(dropout, handle.handle, 0, NULL, 0, 0)
        _check(status, "no dropout")
        self.call.rnn = self.descriptors.make(of, "RNN")
        status = (<cg_rnn_set_t> <size_t> of("cudnnSetRNNDescriptor_v8"))(
            self.call.rnn, K.RNN_ALGO_PERSIST_STATIC if persistent else K.RNN_ALGO_STANDARD, kind, K.RNN_DOUBLE_BIAS,
            K.BIDIRECTIONAL if bidirectional else K.UNIDIRECTIONAL, K.LINEAR_INPUT, number, precision, math_mode, inputs, hidden,
            hidden, layers, dropout, 0)
        _check(status, f"a stack {self.name}")
        self.call.x_desc, self.call.y_desc = self.descriptors.make(of, "RNNData"), self.descriptors.make(of, "RNNData")
        for desc, width in ((<size_t> self.call.x_desc, inputs), (<size_t> self.call.y_desc, directions * hidden)):
            status = (<cg_rnn_set_data_t> <size_t> of("cudnnSetRNNDataDescriptor"))(
                <void *> <size_t> desc, number, K.RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED, sizes[0], count, width, sizes.data(), NULL)
            _check(status, f"sequences for {self.name}")
        self.call.h_desc = self.descriptors.make(of, "Tensor")
        state, strides = [layers * directions, count, hidden], [count * hidden, hidden, 1]
        set_tensor = <cg_rnn_set_tensor_t> <size_t> of("cudnnSetTensorNdDescriptor")
        status = set_tensor(self.call.h_desc, number, 3, state.data(), strides.data())
        _check(status, f"states of {self.name}")
        self.call.handle = handle
        status = (<cg_rnn_spaces_t> <size_t> of("cudnnGetRNNTempSpaceSizes"))(
            handle.handle, self.call.rnn, K.FWD_MODE_TRAINING, self.call.x_desc, &self.call.workspace_size,
            &self.call.reserve_size)
        _check(status, f"scratch of {self.name}")
        measure = <cg_rnn_weights_t> <size_t> of("cudnnGetRNNWeightSpaceSize")
        status = measure(handle.handle, self.call.rnn, &self.call.weights_size)
        _check(status, f"weights of {self.name}")
        self.scratch, self.reserve = self.call.workspace_size, self.call.reserve_size
        self._check_weights(of, _CELLS[cell][1], inputs, hidden, layers, directions, item)
        self.on_device = current().constant(np.array(list(sizes), np.int32))
        self.call.lengths = <const int32_t *> <size_t> self.on_device.address
        cg_recurrence_functions(&self.call, of("cudnnRNNForward"), of("cudnnRNNBackwardData_v8"),
                                of("cudnnRNNBackwardWeights_v8"))

    cdef int _check_weights(self, of, int gates, int inputs, int hidden, int layers, int directions, size_t item) except -1:
        """That the library's weights lie as ours: for each layer and direction its matrices, then for each its biases."""
        cdef void *matrix = NULL
        cdef void *bias = NULL
        cdef size_t begin = 4096  # some address
        cdef cg_rnn_part_t place = <cg_rnn_part_t> <size_t> of("cudnnGetRNNWeightParams")
        cdef void *matrix_desc = self.descriptors.make(of, "Tensor")
        cdef void *bias_desc = self.descriptors.make(of, "Tensor")
        cdef int status
        parts = [(gates * hidden, inputs if p < directions else directions * hidden) for p in range(layers * directions)]
        self.weights = sum(rows * (n + hidden + 2) for rows, n in parts)
        at, at_bias = 0, sum(rows * (n + hidden) for rows, n in parts)
        same = self.call.weights_size == self.weights * item
        for p, (_, n) in enumerate(parts):
            for part in range(2 * gates):
                status = place(self.call.handle.handle, self.call.rnn, p, self.call.weights_size, <void *> begin, part,
                               matrix_desc, &matrix, bias_desc, &bias)
                _check(status, f"weights of {self.name}")
                same = same and <size_t> matrix == begin + at * item and <size_t> bias == begin + at_bias * item
                at += hidden * (n if part < gates else hidden)
                at_bias += hidden
        if not same:
            raise NoWay(f"cuDNN: expected {self.name} with {self.weights} weights in order, got {self.call.weights_size} bytes")
        return 0

    def forward(self, x, w, y, reserve=None):
        """A command: y (rows, directions * hidden) of x (rows, inputs) and the weights; training: reserve is a buffer."""
        return Recurrence(self, 0, {"x": x, "weights": w, "y": y} | ({} if reserve is None else {"reserve": reserve}))

    def backward_data(self, y, dy, w, dx, reserve):
        """A command: dx of dy, behind the forward command with this reserve, which it changes."""
        return Recurrence(self, 1, {"y": y, "dy": dy, "weights": w, "dx": dx, "reserve": reserve})

    def backward_weights(self, x, y, dw, reserve):
        """A command that adds the gradient of the weights to dw, behind `backward_data` with this reserve."""
        return Recurrence(self, 2, {"x": x, "y": y, "dw": dw, "reserve": reserve})


cdef class Recurrence:
    """One pass of a `Stack` with its buffers: a command."""

    cdef cg_recurrence call
    cdef Stack stack
    cdef dict buffers
    cdef readonly size_t scratch

    def __init__(self, Stack stack, int step, dict buffers):
        self.stack, self.buffers, self.scratch = stack, buffers, stack.scratch
        self.call = stack.call
        self.call.command.run, self.call.command.state, self.call.step = cg_recur, &self.call, step
        self.call.mode = K.FWD_MODE_TRAINING if "reserve" in buffers else K.FWD_MODE_INFERENCE
        if "reserve" not in buffers:
            self.call.reserve_size = 0

    @property
    def address(self):
        """Address of the command."""
        return <size_t> &self.call.command

    @property
    def name(self):
        """What it computes."""
        return self.stack.name + ("", "_dx", "_dw")[self.call.step]

    def set_buffers(self, list addresses):
        """Writes the addresses of the buffers."""
        found = {k: addresses[b.slot] + b.offset for k, b in self.buffers.items()}
        self.call.x, self.call.y = <void *> <size_t> found.get("x", 0), <void *> <size_t> found.get("y", 0)
        self.call.dx, self.call.dy = <void *> <size_t> found.get("dx", 0), <void *> <size_t> found.get("dy", 0)
        self.call.weights, self.call.dw = <void *> <size_t> found.get("weights", 0), <void *> <size_t> found.get("dw", 0)
        self.call.reserve = <void *> <size_t> found.get("reserve", 0)
        self.call.workspace = <void *> <size_t> addresses[SLOT_SCRATCH] if self.scratch else NULL

    def clone(self):
        """Another one with buffers of its own."""
        return Recurrence(self.stack, self.call.step, self.buffers)

    def explain(self, int result):
        """What a result of `run` means."""
        return cudnn.explain(result, self.name)

    def __repr__(self):
        return self.name
