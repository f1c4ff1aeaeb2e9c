"""Bad environments, simulated: each has its exact message, nothing fails at import, and the CPU engine is as it was."""

import os
import subprocess
import sys

import numpy as np
import pytest

import cogkit as C

TRAIN = """
import sys
import numpy as np
import cogkit as C

x, y = C.input_variable(6), C.input_variable(3)
model = C.layers.Sequential([C.layers.Dense(8, activation=C.tanh), C.layers.Dense(3)])(x)
trainer = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.adam(model.parameters, 0.01, 0.9)])
rng = np.random.RandomState(0)
feed = {x: rng.randn(8, 6).astype("f"), y: np.eye(3, dtype="f")[rng.randint(0, 3, 8)]}
"""
EVAL = """
import numpy as np
import cogkit as C
assert C.device.all_devices()[-1] == C.device.cpu()
x = C.input_variable(3)
assert (C.relu(x).eval({x: np.ones((2, 3), "f")}) == 1).all()
print("the CPU works", C.device.use_default_device(), len(C.device.all_devices()))
try:
    C.device.gpu(0)
except C.DeviceError as e:
    print(e)
with_engine = C.device.use_engine("cuda")
try:
    with with_engine:
        print(C.relu(x).eval({x: np.ones((2, 3), "f")}).sum())
except C.DeviceError as e:
    print(e)
"""


def run(text, environment, *arguments, **switches):
    """(lines printed, exit status, what was said on stderr) of a process of its own."""
    env = {**os.environ, **environment, "PYTHONSAFEPATH": "1", **{k: str(v) for k, v in switches.items()}}
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout.splitlines(), done.returncode, done.stderr


@pytest.mark.usefixtures("fake")
def test_no_driver(cuda_environment):
    lines, status, said = run(EVAL, cuda_environment, COGKIT_LIBCUDA="/nowhere/libcuda.so.1")
    assert status == 0, said
    assert lines[0] == "the CPU works CPU 1"
    assert lines[1].startswith(
        "device: expected the number of a GPU that is there, got 0 of no GPU (CUDA driver: expected /nowhere/"
    )
    assert lines[2].endswith("install the NVIDIA driver, or use C.device.cpu()")


@pytest.mark.usefixtures("fake")
def test_a_driver_that_is_too_old(cuda_environment):
    lines, status, said = run(EVAL, cuda_environment, FAKECUDA_VERSION=11080)
    assert status == 0, said
    assert lines[0] == "the CPU works CPU 1"
    assert lines[2] == "CUDA driver: expected one for CUDA 12 or later, got one for 11.8; update the NVIDIA driver"


@pytest.mark.usefixtures("fake")
def test_a_driver_without_a_gpu(cuda_environment):
    lines, status, said = run(EVAL, cuda_environment, FAKECUDA_DEVICES=0)
    assert status == 0, said
    assert lines[0] == "the CPU works CPU 1"
    assert (
        lines[2].startswith("CUDA engine: expected a GPU, got none") or lines[2] == "device: expected a GPU number below 0, got 0"
    )


@pytest.mark.usefixtures("fake")
def test_no_pycuda(cuda_environment, tmp_path):
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").write_text("raise ImportError('no PyCUDA here')")
    lines, status, said = run(EVAL, cuda_environment, PYTHONPATH=tmp_path)
    assert status == 0, said
    assert lines[0] == "the CPU works CPU 1"
    assert lines[2] == "CUDA engine: expected PyCUDA, got none (no PyCUDA here); install it: pip install cogkit[cuda]"


@pytest.mark.usefixtures("fake")
def test_no_compiler_and_no_kernels_of_the_package(cuda_environment, tmp_path):
    where = {"COGKIT_NVCC": "/nowhere/nvcc", "CUDA_HOME": "/nowhere", "PATH": "/nowhere", "COGKIT_CACHE": str(tmp_path)}
    text = "import cogkit.engine.cuda.images as i, shutil; real = shutil.which\n"
    text += "shutil.which = lambda name, *a, **k: None if 'nvcc' in str(name) else real(name, *a, **k)\n" + EVAL
    lines, status, said = run(text, cuda_environment, **where)
    assert status == 0, said
    assert "expected a compiler, found none; install nvcc (pip install nvidia-cuda-nvcc) or set COGKIT_NVCC" in lines[1]


@pytest.mark.usefixtures("fake")
def test_without_nvidias_libraries_own_kernels_stand_in(cuda_environment):
    none = dict.fromkeys(("COGKIT_LIBCUBLASLT", "COGKIT_LIBCUDNN", "COGKIT_LIBNCCL"), "none")
    text = (
        TRAIN
        + """
with C.device.use_engine("cuda"):
    trainer.train_minibatch(feed)
print(trainer.previous_minibatch_loss_average)
from cogkit.engine.cuda import libraries
print(libraries.versions()["cuDNN"])
"""
    )
    lines, status, said = run(text, cuda_environment, **none)
    assert status == 0, said
    assert float(lines[0]) > 0 and "cuDNN" in lines[1]


@pytest.mark.usefixtures("fake")
def test_out_of_memory_says_how_much_a_plan_wants(cuda_environment):
    text = (
        TRAIN
        + """
feed = {x: rng.randn(20000, 6).astype("f"), y: np.eye(3, dtype="f")[rng.randint(0, 3, 20000)]}
with C.device.use_engine("cuda"):
    try:
        trainer.train_minibatch(feed)
    except C.DeviceError as e:
        print(e)
print(model.eval({x: feed[x][:2]}).shape)
"""
    )
    lines, status, said = run(text, cuda_environment, FAKECUDA_MEMORY=300_000)
    assert status == 0, said
    assert "MiB more, got" in lines[0] and "this plan wants" in lines[0] and "use a smaller minibatch" in lines[0]
    assert lines[1] == "(2, 3)"  # the CPU engine goes on


@pytest.mark.usefixtures("fake")
def test_a_gpu_lost_in_training_leaves_the_checkpoint(cuda_environment, tmp_path):
    path = str(tmp_path / "saved")
    text = (
        TRAIN
        + """
with C.device.use_engine("cuda"):
    try:
        for i in range(100):
            trainer.train_minibatch(feed)
            if i == 1:
                trainer.save_checkpoint(sys.argv[1])
                print("saved", trainer.previous_minibatch_loss_average)
    except C.DeviceError as e:
        print(e)
trainer.restore_from_checkpoint(sys.argv[1])
trainer2 = C.Trainer(model, C.cross_entropy_with_softmax(model, y), [C.adam(model.parameters, 0.01, 0.9)])
trainer2.restore_from_checkpoint(sys.argv[1])
for i in range(2):
    trainer2.train_minibatch(feed)
print("resumed", trainer2.previous_minibatch_loss_average)
"""
    )
    lines, status, said = run(text, cuda_environment, path, FAKECUDA_LOSE_AFTER=400)
    assert status == 0, said
    assert lines[0].startswith("saved")
    assert "the GPU's context is lost: what was saved is whole, start again from the last checkpoint" in lines[1]
    assert lines[2].startswith("resumed")
    for name in ("saved", "saved.ckp"):
        assert (tmp_path / name).exists()
    whole = C.load_model(path)
    assert all(np.isfinite(p.value).all() for p in whole.parameters)


@pytest.mark.usefixtures("fake")
def test_devices_have_cntks_names():
    from cogkit.device import DeviceKind

    there = C.device.all_devices()
    assert str(there[0]) == "GPU[0]" and there[0].type() is DeviceKind.GPU and there[-1] == C.device.cpu()
    assert C.device.get_gpu_properties(there[0]).total_memory > 0
    assert C.device.use_default_device() == C.device.cpu()
    try:
        C.device.set_excluded_devices([there[0]])
        assert not C.device.try_set_default_device(there[0])
        C.device.set_excluded_devices([])
        assert C.device.try_set_default_device(there[0]) and C.device.use_default_device() == there[0]
        x = C.input_variable(3)
        assert (C.relu(x).eval({x: np.ones((2, 3), np.float32)}) == 1).all()
        assert C.device.try_set_default_device(there[0], True) and not there[0].is_locked()  # locked by this process itself
        text = "import cogkit as C; d = C.device.gpu(0); print(d.is_locked(), C.device.try_set_default_device(d, True))"
        assert run(text, {})[0] == ["True False"]
    finally:
        C.device.set_excluded_devices([])
        C.device.try_set_default_device(C.device.cpu())
    text = "import cogkit as C; print(C.device.local_gpu())"
    assert run(text, {}, FAKECUDA_DEVICES=2, MPI_LOCALRANKID=1)[0] == ["GPU[1]"]
    assert run(text, {}, FAKECUDA_DEVICES=2, MPI_LOCALRANKID=2)[0] == ["GPU[0]"]
    with pytest.raises(C.DeviceError, match="expected the number of a GPU that is there, got 7 of 1 GPUs"):
        C.device.gpu(7)
    x = C.input_variable(3)
    assert (C.relu(x).eval({x: np.ones((2, 3), np.float32)}, device=there[0]) == 1).all()
