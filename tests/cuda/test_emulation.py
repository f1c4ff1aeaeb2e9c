"""The emulation itself: it runs kernels, streams and graphs as a GPU does, and finds what a GPU would not forgive."""

import ctypes
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from cogkit.engine.cuda import device, driver, images
from cogkit.errors import DeviceError

SCALE = """
#include "common.cuh"
CG_KERNEL(scale, const float *x, float *y, float a, int64_t n) { CG_EACH(i, n) y[i] = a * x[i]; }
"""
B = driver.B


@pytest.fixture
def gpu(fake):
    found = device.device()
    with found.active():
        yield found
        fake.reset()


class Kernel:
    """A kernel of a text that includes common.cuh by itself."""

    def __init__(self, name, text):
        self.name = name
        text = text if "#include" in text else '#include "common.cuh"\n' + text
        self.module = driver.Module(images.compiled(name, text, device.current().arch), name)

    def launch(self, grid, block, arguments, shared=0):
        """A launch, its buffers (`Memory`) bound."""
        memories = [a for a in arguments if isinstance(a, device.Memory)]
        slots = [B(memories.index(a)) if isinstance(a, device.Memory) else a for a in arguments]
        made = driver.Launch(self.name, self.module.function(self.name), grid, block, slots, shared)
        made.set_buffers([m.address for m in memories])
        return made

    def run(self, gpu, grid, block, *arguments, shared=0):
        """Runs once and waits."""
        driver.Commands([self.launch(grid, block, arguments, shared)]).run(gpu.stream_handle)
        gpu.finish()


def put(gpu, array):
    """A block of the device with an array's values."""
    memory = gpu.alloc(array.nbytes)
    gpu.write(memory.address, array)
    return memory


# --- what kernels see -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fwd", "rev", "7", "12345"])
def order(request, monkeypatch):
    """The order of threads and of blocks."""
    monkeypatch.setenv("CUDACPU_ORDER", request.param)


@pytest.mark.usefixtures("order")
def test_barriers_votes_and_shared_memory(gpu):
    kernel = Kernel(
        "reduce",
        """
CG_KERNEL(reduce, const float *x, float *sums, int *votes, int n) {
    __shared__ float fixed[64];
    DYN_SHARED(float, dynamic);
    const int t = threadIdx.x;
    fixed[t] = blockIdx.x * 64 + t < n ? x[blockIdx.x * 64 + t] : 0.0f;
    __syncthreads();
    dynamic[t] = fixed[63 - t];
    __syncthreads();
    const float sum = block_fold(dynamic[t], fixed, [](float a, float b) { return a + b; });
    const int count = __syncthreads_count(t < 10), all = __syncthreads_and(t < 64), any = __syncthreads_or(t == 70);
    if (t == 0) sums[blockIdx.x] = sum, votes[blockIdx.x] = count * 100 + all * 10 + any;
}
""",
    )
    x = np.arange(150, dtype=np.float32)
    given, sums, votes = put(gpu, x), gpu.alloc(12), gpu.alloc(12)
    kernel.run(gpu, (3,), (64,), given, sums, votes, np.int32(x.size), shared=256)
    np.testing.assert_array_equal(gpu.read(sums.address, (3,), np.float32), [x[:64].sum(), x[64:128].sum(), x[128:].sum()])
    np.testing.assert_array_equal(gpu.read(votes.address, (3,), np.int32), [1010] * 3)


@pytest.mark.usefixtures("order")
def test_collectives_of_a_warp(gpu):
    kernel = Kernel(
        "warp",
        """
CG_KERNEL(warp, const int *x, int *y) {
    const int t = threadIdx.x + threadIdx.y * blockDim.x, v = x[t];
    int *out = y + 10 * t;
    out[0] = __shfl_xor_sync(~0u, v, 5), out[1] = __shfl_up_sync(~0u, v, 3), out[2] = __shfl_down_sync(~0u, v, 7, 16);
    out[3] = __shfl_sync(~0u, v, 9, 8), out[4] = (int)__ballot_sync(~0u, v % 3 == 0), out[5] = __any_sync(~0u, v == 99);
    out[6] = __all_sync(~0u, v < 99), out[7] = (int)__match_any_sync(~0u, v % 4);
    out[8] = -1;
    if (threadIdx.x % 2) out[8] = __shfl_sync(0xaaaaaaaau, v, 31);
    else out[8] = __shfl_sync(0x55555555u, v, 0);
    __syncwarp();
    double sum = v;
    for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    out[9] = (int)sum;
}
""",
    )
    x = np.random.RandomState(0).randint(0, 50, 64).astype(np.int32)
    given, made = put(gpu, x), gpu.alloc(64 * 40)
    kernel.run(gpu, (1,), (32, 2), given, made)
    found = gpu.read(made.address, (2, 32, 10), np.int32)
    lane = np.arange(32)
    for w, v in enumerate(x.reshape(2, 32)):
        down = np.where(lane % 16 + 7 < 16, v[np.minimum(lane + 7, 31)], v)
        up = np.where(lane >= 3, v[np.maximum(lane - 3, 0)], v)
        ballot = np.packbits(v % 3 == 0, bitorder="little").view(np.int32)[0]
        same = np.packbits(v[:, None] % 4 == v % 4, axis=1, bitorder="little").view(np.int32)[:, 0]
        wish = [v[lane ^ 5], up, down, v[lane // 8 * 8 + 1], ballot, 0, 1, same, np.where(lane % 2, v[31], v[0]), v.sum()]
        for i, column in enumerate(wish):
            np.testing.assert_array_equal(found[w, :, i], column, err_msg=f"output {i}")


def test_intrinsics_atomics_and_vectors(gpu):
    kernel = Kernel(
        "intrinsics",
        """
CG_KERNEL(intrinsics, const uint4 *x, uint32_t *y, double *d, int *counters) {
    const uint4 v = x[threadIdx.x];
    const uint32_t made[8] = {(uint32_t)__popc(v.x), (uint32_t)__clz((int)v.x), (uint32_t)__ffs((int)v.x), __brev(v.x), __umulhi(v.x, v.y),
                              __byte_perm(v.x, v.y, 0x5140), __float_as_uint(__uint_as_float(v.x)), (uint32_t)__popcll(v.x | (uint64_t)v.y << 32)};
    for (int i = 0; i < 8; i++) y[8 * threadIdx.x + i] = made[i];
    d[threadIdx.x] = __hiloint2double(1072693248, 0) + rsqrt(4.0) + fmax(1.0, NAN) + max(2, 3) + min(5u, 7u) + __saturatef(7.0f);
    atomicAdd(&counters[0], 2), atomicMax(&counters[1], (int)threadIdx.x), atomicMin(&counters[2], -(int)threadIdx.x);
    atomicOr((unsigned *)&counters[3], 1u << threadIdx.x);
    int seen, old = counters[4];
    do seen = old, old = atomicCAS(&counters[4], seen, seen + 3);
    while (old != seen);
}
""",
    )
    x = np.random.RandomState(1).randint(0, 2**32, (16, 4), np.uint32)
    x[0] = 0
    given, made, sums, counters = put(gpu, x), gpu.alloc(16 * 32), gpu.alloc(16 * 8), put(gpu, np.zeros(5, np.int32))
    kernel.run(gpu, (1,), (16,), given, made, sums, counters)
    for a, found in zip(x, gpu.read(made.address, (16, 8), np.uint32), strict=True):
        n, m = int(a[0]), int(a[1])
        bits, four = f"{n:032b}", n.to_bytes(4, "little") + m.to_bytes(4, "little")
        swapped = int.from_bytes(bytes([four[0], four[4], four[1], four[5]]), "little")
        wish = [bits.count("1"), 32 - n.bit_length(), (n & -n).bit_length(), int(bits[::-1], 2), n * m >> 32, swapped, n]
        assert [int(f) for f in found] == [*wish, bin(n).count("1") + bin(m).count("1")]
    np.testing.assert_array_equal(gpu.read(sums.address, (16,), np.float64), [1 + 0.5 + 1 + 3 + 5 + 1] * 16)
    np.testing.assert_array_equal(gpu.read(counters.address, (5,), np.int32), [32, 15, -15, 0xFFFF, 48])


def test_half_precision(gpu):
    kernel = Kernel(
        "halves",
        """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include "common.cuh"
CG_KERNEL(halves, const __half *h, float *wide, const float *x, __half *narrow, __nv_bfloat16 *brain, float *back, int64_t n) {
    CG_EACH(i, n) {
        wide[i] = __half2float(h[i]), narrow[i] = __float2half_rn(x[i]), brain[i] = __float2bfloat16_rn(x[i]);
        back[i] = __bfloat162float(brain[i]);
    }
}
""",
    )
    n = 65536
    h = np.arange(n, dtype=np.uint16)
    rng = np.random.RandomState(2)
    bits = rng.randint(0, 2**32, n, np.uint32)
    bits[: n // 2] = rng.randint(0, 2, n // 2) << 31 | rng.randint(90, 145, n // 2) << 23 | rng.randint(0, 2**23, n // 2)
    x = bits.view(np.float32)
    x[:8] = [0, -0.0, np.inf, -np.inf, np.nan, 65519.99, 65520, 2**-24 * 0.5]
    blocks = [put(gpu, h), gpu.alloc(4 * n), put(gpu, x), gpu.alloc(2 * n), gpu.alloc(2 * n), gpu.alloc(4 * n)]
    kernel.run(gpu, (8,), (64,), *blocks, np.int64(n))
    np.testing.assert_array_equal(gpu.read(blocks[1].address, (n,), np.float32), h.view(np.float16).astype(np.float32))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(gpu.read(blocks[3].address, (n,), np.float16), x.astype(np.float16))
    words = x.view(np.uint32)
    rounded = ((words.astype(np.uint64) + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)
    fine = ~np.isnan(x)
    np.testing.assert_array_equal(gpu.read(blocks[4].address, (n,), np.uint16)[fine], rounded[fine])
    np.testing.assert_array_equal(gpu.read(blocks[5].address, (n,), np.uint32)[fine], rounded[fine].astype(np.uint32) << 16)


# --- bugs that it finds ---------------------------------------------------------------------------------------------------

BUGS = {
    "divergent": ("if (threadIdx.x < 40) __syncthreads();\n else __syncthreads();", "wait at different barriers (lines 3 and 4)"),
    "lane": ("if (threadIdx.x == 3) return;\n y[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 1);", "has returned"),
    "mask": ("y[threadIdx.x] = __shfl_xor_sync(1u, x[threadIdx.x], 1);", "whose mask leaves it out"),
    "deadlock": (
        "if (threadIdx.x < 16) __syncthreads();\n else if (threadIdx.x < 32) __shfl_sync(~0u, 1, 0);",
        "deadlock: 16 threads wait at __syncthreads, 16 at a warp's collective",
    ),
    "behind": ("y[threadIdx.x + 1] = x[threadIdx.x];", "kernel behind wrote outside of a block of 256 bytes"),
    "before": ("y[(int)threadIdx.x - 1] = x[threadIdx.x];", "kernel before wrote outside of a block of 256 bytes"),
    "far": ("y[threadIdx.x - (1ll << 40)] = x[threadIdx.x];", "kernel far: touched 0x"),
    "null": ("float *none = y + 1 - 1;\n if (x[0] < 9) none = nullptr;\n none[0] = 1;", "null pointer (null.cu:5)"),
    "odd": ("*(double *)(y + 1) = 1;", "misaligned address"),
    "index": ("__shared__ float s[64];\n s[threadIdx.x + n] = 1;\n y[0] = s[0];", "index 64 outside of its array (index.cu:4)"),
    "division": ("y[0] = 7 / (n - 1);", "integer division by zero (division.cu:3)"),
    "trap": ("if (threadIdx.x == 5) __trap();", "__trap in thread (5,0,0)"),
    "assertion": ("assert(threadIdx.x < 6);", "line 3: assertion `threadIdx.x < 6` failed"),
    "recursion": ("volatile char room[300000];\n room[0] = room[n] = 1;", "kernel recursion: touched 0x"),
}


@pytest.mark.skipif(os.environ.get("CUDACPU_SANITIZE") == "1", reason="the sanitizers end the process")
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_an_error_of_the_launch(gpu, fake, name):
    body, message = BUGS[name]
    kernel = Kernel(name, f"CG_KERNEL({name}, const float *x, float *y, int n) {{\n {body}\n}}\n")
    x, y = put(gpu, np.zeros(64, np.float32)), put(gpu, np.zeros(64, np.float32))
    with pytest.raises(DeviceError, match="context is lost"):
        kernel.run(gpu, (2,), (64,), x, y, np.int32(1))
    assert message in fake.last_error()
    with pytest.raises(DeviceError):  # sticky, as on a GPU
        kernel.run(gpu, (2,), (64,), x, y, np.int32(1))
    fake.reset()
    kernel = Kernel("scale", SCALE)  # another kernel runs after it
    kernel.run(gpu, (1,), (64,), x, y, np.float32(3), np.int64(64))
    np.testing.assert_array_equal(gpu.read(y.address, (64,), np.float32), np.zeros(64))


def test_a_missing_barrier_shows_in_the_order_of_threads(gpu, monkeypatch):
    kernel = Kernel(
        "turn", "CG_KERNEL(turn, const float *x, float *y) {\n __shared__ float s[64];\n s[threadIdx.x] = x[threadIdx.x];\n"
        " y[threadIdx.x] = s[63 - threadIdx.x];\n}\n",
    )  # fmt: skip
    x, y = put(gpu, np.arange(64, dtype=np.float32)), gpu.alloc(256)
    found = {}
    for order in ("fwd", "rev"):
        monkeypatch.setenv("CUDACPU_ORDER", order)
        kernel.run(gpu, (1,), (64,), x, y)
        found[order] = gpu.read(y.address, (64,), np.float32)
    assert np.isnan(found["fwd"][:32]).all() and np.isnan(found["rev"][32:]).all()  # what no thread has written yet


def test_parameters_that_do_not_fit(gpu, fake):
    kernel = Kernel("scale", SCALE)
    x, y = gpu.alloc(40), gpu.alloc(40)
    for arguments, message in [
        ((x, y, np.float32(1)), "expected 32 bytes of parameters, got 20"),
        ((x, y, np.float32(1), np.int64(1), np.int64(1)), "expected 32 bytes of parameters, got 40"),
        ((x, np.int64(4096), np.float32(1), np.int64(1)), "parameter 1: 0x1000 is no address of device memory"),
    ]:
        with pytest.raises(DeviceError):
            kernel.run(gpu, (1,), (32,), *arguments)
        assert message in fake.last_error()
        fake.reset()


def test_memory_from_another_life(gpu, fake):
    kernel = Kernel("scale", SCALE)
    x, y = gpu.alloc(40), gpu.alloc(40)
    graph = driver.Graph(driver.Commands([kernel.launch((1,), (32,), (x, y, np.float32(1), np.int64(10)))]), gpu.stream_handle)
    graph.run(gpu.stream_handle)
    gpu.finish()
    y._held.free()
    with pytest.raises(DeviceError):
        graph.run(gpu.stream_handle)
        gpu.finish()
    assert "parameter 1" in fake.last_error()


def test_sizes_that_no_launch_has(gpu, fake):
    kernel = Kernel("scale", SCALE)
    x = gpu.alloc(40)
    for block, shared in (((1025,), 0), ((1, 1, 65), 0), ((1,), 300_000)):
        with pytest.raises(DeviceError, match="invalid argument"):
            kernel.run(gpu, (1,), block, x, x, np.float32(1), np.int64(1), shared=shared)
    kernel.run(gpu, (1,), (32,), x, x, np.float32(1), np.int64(1), shared=200_000)  # asked for by Launch


def test_an_out_of_bounds_write_under_the_address_sanitizer(cuda_environment, fake, tmp_path):
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip("g++ has no address sanitizer here")
    text = """
import numpy as np
from cogkit.engine.cuda import device, driver, images
gpu = device.device()
with gpu.active():
    text = '#include "common.cuh"\\nCG_KERNEL(beyond, float *y) {\\n y[threadIdx.x + 1] = 1;\\n}\\n'
    function = driver.Module(images.compiled("beyond", text, gpu.arch), "beyond").function("beyond")
    y = gpu.alloc(128)
    launch = driver.Launch("beyond", function, (1,), (32,), [driver.B(0)])
    launch.set_buffers([y.address])
    driver.Commands([launch]).run(gpu.stream_handle)
    gpu.finish()
"""
    environ = {**os.environ, **cuda_environment, "LD_PRELOAD": found, "CUDACPU_SANITIZE": "1", "COGKIT_CACHE": str(tmp_path)}
    environ |= {"ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run([sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode and "ERROR: AddressSanitizer: use-after-poison" in done.stderr and "beyond.cu:3" in done.stderr, (
        done.stderr
    )


# --- memory, streams, events, by PyCUDA ------------------------------------------------------------------------------------


def test_memory(gpu, fake):
    import pycuda.driver as cuda

    before = fake.counts()
    block = cuda.mem_alloc(4000)
    assert fake.counts()["live"] == before["live"] + 1 and fake.counts()["bytes"] == before["bytes"] + 4000
    host = np.empty(1000, np.float32)
    cuda.memcpy_dtoh(host, block)
    assert np.isnan(host).all()  # what nobody wrote
    cuda.memset_d32(block, 7, 1000)
    cuda.memcpy_dtod(int(block) + 2000, int(block), 2000)
    cuda.memcpy_dtoh(host, block)
    assert (host.view(np.int32) == 7).all()
    assert cuda.mem_get_info()[1] == gpu.handle.total_memory() == 4 << 30
    block.free()
    assert fake.counts()["live"] == before["live"]


def test_copies_outside_of_a_block(gpu, fake):
    import pycuda.driver as cuda

    block, host = cuda.mem_alloc(400), np.zeros(101, np.float32)
    for copy in (
        lambda: cuda.memcpy_htod(block, host),
        lambda: cuda.memcpy_dtoh(host, block),
        lambda: cuda.memcpy_dtoh(host[:1], int(block) - 4),
        lambda: cuda.memset_d8(block, 0, 401),
        lambda: cuda.memcpy_dtod(int(block) + 4, int(block), 396),
    ):
        with pytest.raises(cuda.LogicError, match="illegal memory access"):
            copy()
            cuda.Context.synchronize()
        fake.reset()


def test_no_memory_is_left(gpu, fake):
    gc.collect()
    gpu.alloc(1)  # what nobody has any more is freed
    fake.set(MEMORY=fake.counts()["bytes"] + 1000)
    first = gpu.alloc(600)
    with pytest.raises(DeviceError, match="MiB more, got"):
        gpu.alloc(600)
    del first
    gpu.alloc(600)  # an error that goes by


def test_streams_events_and_pinned_memory(gpu):
    import pycuda.driver as cuda

    x = cuda.pagelocked_empty(1000, np.float32)
    y = cuda.pagelocked_empty(1000, np.float32)
    x[:], y[:] = np.arange(1000), 0
    one, other, done, begun = cuda.Stream(), cuda.Stream(), cuda.Event(), cuda.Event()
    block = cuda.mem_alloc(4000)
    begun.record(one)
    cuda.memcpy_htod_async(block, x, one)
    done.record(one)
    other.wait_for_event(done)
    cuda.memcpy_dtoh_async(y, block, other)
    other.synchronize()
    assert one.is_done() and done.query() and done.time_since(begun) >= 0
    np.testing.assert_array_equal(y, x)


def test_lazy_streams_run_when_somebody_waits(gpu, fake):
    import pycuda.driver as cuda

    fake.set(LAZY=1)
    x, y = cuda.pagelocked_empty(10, np.float32), cuda.pagelocked_empty(10, np.float32)
    x[:], y[:] = np.arange(10), 0
    one, other, done = cuda.Stream(), cuda.Stream(), cuda.Event()
    block = cuda.mem_alloc(40)
    cuda.memcpy_htod_async(block, x, one)
    done.record(one)
    cuda.memcpy_htod_async(block, y, one)  # after the event: the other stream does not wait for it
    other.wait_for_event(done)
    cuda.memcpy_dtoh_async(y, block, other)
    assert not one.is_done() and not done.query() and not y.any()
    other.synchronize()
    assert done.query() and not one.is_done()
    np.testing.assert_array_equal(y, x)
    one.synchronize()


def test_pools_and_prepared_calls(gpu):
    import pycuda.driver as cuda
    from pycuda.tools import DeviceMemoryPool

    function = cuda.module_from_buffer(images.compiled("scale", SCALE, gpu.arch)).get_function("scale")
    function.prepare("PPfq")
    pool = DeviceMemoryPool()
    x, y = pool.allocate(4000), pool.allocate(4000)
    host = np.arange(1000, dtype=np.float32)
    cuda.memcpy_htod(int(x), host)
    function.prepared_async_call((4, 1), (64, 1, 1), gpu.stream, x, y, 3.0, 1000)
    gpu.stream.synchronize()
    found = np.empty_like(host)
    cuda.memcpy_dtoh(found, int(y))
    np.testing.assert_array_equal(found, 3 * host)
    x.free(), y.free(), pool.stop_holding()


def test_what_the_emulation_does_not_have_says_so(gpu):
    import pycuda.driver as cuda

    with pytest.raises(cuda.Error, match="operation not supported"):
        cuda.Context.get_cache_config()


def test_threads_have_contexts_of_their_own(gpu):
    kernel = Kernel("scale", SCALE)
    results = {}

    def work(number):
        x, stream = np.full(200, number, np.float32), gpu.cuda.Stream()
        a, b = put(gpu, x), gpu.alloc(x.nbytes)
        for _ in range(20):
            driver.Commands([kernel.launch((2,), (64,), (a, b, np.float32(2), np.int64(200)))]).run(int(stream.handle))
        stream.synchronize()
        results[number] = gpu.read(b.address, x.shape, x.dtype)

    def with_context(number):
        with gpu.active():
            work(number)

    threads = [threading.Thread(target=with_context, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((results[i] == 2 * i).all() for i in range(4))


def test_a_lost_gpu(gpu, fake):
    kernel = Kernel("scale", SCALE)
    x, y = gpu.alloc(40), gpu.alloc(40)
    fake.set(LOSE_AFTER=2)
    arguments = (x, y, np.float32(1), np.int64(10))
    for _ in range(2):
        kernel.run(gpu, (1,), (32,), *arguments)
    for _ in range(2):
        with pytest.raises(DeviceError, match="context is lost"):
            kernel.run(gpu, (1,), (32,), *arguments)
    with pytest.raises(gpu.cuda.LaunchError):
        gpu.cuda.mem_alloc(40)
    with pytest.raises(DeviceError, match="context is lost"):
        gpu.finish()


def test_switches_of_the_environment(cuda_environment, fake):
    text = """
import ctypes, os
ctypes.CDLL(os.environ["COGKIT_LIBCUDA"], mode=ctypes.RTLD_GLOBAL)
import pycuda.driver as cuda
try:
    cuda.init()
    print(cuda.get_driver_version(), cuda.Device.count(), cuda.Device(1).total_memory())
except cuda.Error as e:
    print(type(e).__name__, e)
"""
    for switches, wish in [
        ({"DEVICES": 2, "VERSION": 12040, "MEMORY": 5000}, "12040 2 5000"),
        ({"DEVICES": 0}, "RuntimeError cuInit failed: no CUDA-capable device is detected"),
        ({}, "LogicError cuDeviceGet failed: invalid device ordinal"),
    ]:
        environ = {**os.environ, **cuda_environment, **{f"FAKECUDA_{k}": str(v) for k, v in switches.items()}}
        done = subprocess.run([sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=100, check=True)
        assert done.stdout.strip() == wish


# --- graphs ------------------------------------------------------------------------------------------------------------------


def test_a_graph_is_captured_once_and_replayed(gpu, fake):
    x = np.arange(1000, dtype=np.float32)
    a, b, c = put(gpu, x), gpu.alloc(x.nbytes), gpu.alloc(x.nbytes)
    kernel = Kernel("scale", SCALE)
    fill, copy = driver.Memset(B(0), 4 * 500), driver.Copy(B(0), B(1), x.nbytes)
    fill.set_buffers([b.address])
    copy.set_buffers([c.address, b.address])
    launch = kernel.launch((4,), (64,), (a, b, np.float32(2), np.int64(x.size)))
    commands = driver.Commands([launch, fill, copy])
    commands.run(gpu.stream_handle)
    wish = np.where(np.arange(1000) < 500, 0, 2 * x)
    np.testing.assert_array_equal(gpu.read(c.address, x.shape, x.dtype), wish)
    before = fake.counts()
    graph = driver.Graph(commands, gpu.stream_handle)
    gpu.write(a.address, x + 1)
    np.testing.assert_array_equal(gpu.read(c.address, x.shape, x.dtype), wish)  # a capture runs nothing
    for _ in range(3):
        graph.run(gpu.stream_handle)
    np.testing.assert_array_equal(gpu.read(c.address, x.shape, x.dtype), np.where(np.arange(1000) < 500, 0, 2 * x + 2))
    after = fake.counts()
    assert after["captured"] - before["captured"] == 1 and after["graph_launches"] - before["graph_launches"] == 3


def begin(fake, stream, mode=1):
    """Begins a capture; a function that ends it and gives the driver's result and the number of nodes."""
    handle = ctypes.c_void_p(int(stream.handle))
    assert fake.library.cuStreamBeginCapture_v2(handle, mode) == 0

    def end():
        graph, n = ctypes.c_void_p(), ctypes.c_size_t()
        result = fake.library.cuStreamEndCapture(handle, ctypes.byref(graph))
        if not result:
            fake.library.cuGraphGetNodes(graph, None, ctypes.byref(n))
            fake.library.cuGraphDestroy(graph)
        return result, n.value

    return end


FORBIDDEN = {
    "memory": (lambda cuda, s, x: cuda.mem_alloc(40), 901),
    "pinned memory": (lambda cuda, s, x: cuda.pagelocked_empty(40, np.float32), 901),
    "waiting": (lambda cuda, s, x: s.synchronize(), 901),
    "asking": (lambda cuda, s, x: s.is_done(), 901),
    "waiting for all": (lambda cuda, s, x: cuda.Context.synchronize(), 901),
    "a copy that the host waits for": (lambda cuda, s, x: cuda.memcpy_htod(x, np.zeros(1)), 901),
    "the legacy stream": (lambda cuda, s, x: cuda.memset_d8(x, 0, 8), 901),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_forbids(gpu, fake, what):
    call, result = FORBIDDEN[what]
    x = gpu.alloc(40)
    end = begin(fake, gpu.stream)
    with pytest.raises(gpu.cuda.Error):
        call(gpu.cuda, gpu.stream, x.address)
    assert end() == (result, 0)
    gpu.finish()  # no harm is left
    gpu.write(x.address, np.zeros(10, np.float32))


def test_a_capture_of_two_streams_must_join(gpu, fake):
    cuda = gpu.cuda
    other, x = cuda.Stream(), gpu.alloc(40)
    for joined, result in ((True, (0, 3)), (False, (904, 0))):
        fork, join = cuda.Event(), cuda.Event()
        end = begin(fake, gpu.stream)
        cuda.memset_d8_async(x.address, 0, 8, gpu.stream)
        fork.record(gpu.stream)
        other.wait_for_event(fork)
        cuda.memset_d8_async(x.address + 8, 0, 8, other)
        if joined:
            join.record(other)
            gpu.stream.wait_for_event(join)
        cuda.memset_d8_async(x.address, 0, 8, gpu.stream)
        assert end() == result


# --- the stand-in for nvcc ---------------------------------------------------------------------------------------------------


def nvcc(environment, *words):
    return subprocess.run([environment["COGKIT_NVCC"], *map(str, words)], capture_output=True, text=True, check=False)


def test_the_compilers_messages(cuda_environment, fake, tmp_path):
    source, out = tmp_path / "a kernel.cu", tmp_path / "out.cubin"
    source.write_text('#include "common.cuh"\nCG_KERNEL(k, int *y) {\n y[0] = unknown;\n}\n')
    done = nvcc(cuda_environment, "-arch=sm_90", "-cubin", "-std=c++17", "-O3", "-I", images.FOLDER, "-o", out, source)
    assert done.returncode and "a kernel.cu:3" in done.stderr and "unknown" in done.stderr and not out.exists()
    assert "expected an option that it knows, got -z" in nvcc(cuda_environment, "-z", "-o", out, source).stderr
    assert "release 13.0" in nvcc(cuda_environment, "--version").stdout
    assert sorted(tmp_path.iterdir()) == [source]


def test_compilers_side_by_side(cuda_environment, fake, tmp_path):
    """All write one file; nobody ever sees half of one."""
    source, out = tmp_path / "scale.cu", tmp_path / "out.cubin"
    source.write_text(SCALE)
    words = ["-arch=sm_90", "-fatbin", "-std=c++17", "-O3", f"-I{images.FOLDER}", "-DX=1", "-Xptxas", "-v", "-o", out, source]
    results = []
    threads = [threading.Thread(target=lambda: results.append(nvcc(cuda_environment, *words).returncode)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [0, 0, 0] and out.read_bytes()[:4] == b"\x7fELF" and sorted(tmp_path.iterdir()) == [out, source]
