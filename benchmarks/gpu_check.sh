#!/bin/bash
# One run on a machine with a GPU, under nine minutes: builds, tests, sanitizer, speed. Everything goes to $OUT (at most 8 files).
#   OUT=out bash benchmarks/gpu_check.sh
# Wanted there: CUDA 12 or later with nvcc, Python >= 3.11 with headers, g++. Without a network: wheels of what Python lacks in .whl/ (PyCUDA too;
# `python -m cogkit.engine.cuda.build_pycuda` makes one). Afterwards commit $OUT/gpu.md and gpu.json as benchmarks/results/gpu-DATE.*,
# and $OUT/device.json as tests/cuda/device.json.
set -u -o pipefail
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
: "${OUT:=out}"; mkdir -p "$OUT"; OUT=$(cd "$OUT" && pwd); export OUT
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
site=${SITE:-/tmp/cogkit-site}
if compgen -G ".whl/*.whl" > /dev/null; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl || exit 3
fi
# extensions are built in place; the package map is given its installed shape by links
mkdir -p "$site"; rm -rf "$site/cogkit" && mkdir -p "$site/cogkit"
ln -s "$PWD"/core/* "$site/cogkit/"; for f in layers data parallel papers; do ln -s "$PWD/$f" "$site/cogkit/$f"; done
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
{
    date; nvidia-smi; nvcc --version | tail -2; "$PYTHON" -VV; g++ --version | head -1; ldd --version | head -1; nproc
    "$PYTHON" -m pip list 2> /dev/null | grep -iE "nvidia-|cuda|numpy|cython|mpi4py|torch"
} > "$OUT/env.txt" 2>&1
t=$SECONDS
"$PYTHON" setup.py -q build_ext --inplace -j "$(nproc)" > "$OUT/build.log" 2>&1 || { tail -30 "$OUT/build.log"; exit 4; }
"$PYTHON" -m cogkit.engine.cuda.build_fatbins >> "$OUT/build.log" 2>&1 || { tail -30 "$OUT/build.log"; exit 5; }
"$PYTHON" core/doctor.py >> "$OUT/env.txt" 2>&1
echo "built in $((SECONDS - t)) s"
"$PYTHON" -c "from cogkit.engine.cuda import cudnn; print(cudnn.device_json())" > "$OUT/device.json" 2>> "$OUT/build.log"
status=0
COGKIT_CUDA_TESTS=real timeout "${TEST_S:-240}" "$PYTHON" -m pytest -q tests/cuda -m "not heavy" --maxfail=40 -p no:cacheprovider \
    --junitxml="$OUT/junit.xml" 2>&1 | tee "$OUT/pytest.log" | tail -25 || status=$?
if command -v compute-sanitizer > /dev/null; then
    COGKIT_CUDA_TESTS=real timeout "${SANITIZE_S:-60}" compute-sanitizer --tool memcheck --error-exitcode 9 "$PYTHON" -m pytest -q -x \
        -p no:cacheprovider tests/cuda/test_training.py -k "sgd or recurrent" > "$OUT/sanitizer.log" 2>&1 || status=$?
    tail -5 "$OUT/sanitizer.log"
fi
# benchmarks is no part of the package: found in the working directory
PYTHONPATH=$PWD:$PYTHONPATH timeout "${BENCH_S:-260}" "$PYTHON" -m benchmarks.gpu --out "$OUT" --seconds "${SECONDS_EACH:-1}" 2>&1 | tail -60 || status=$?
exit $status
