"""The benchmark of ranks runs without PyTorch, and says what it measured and what it could not."""

import json
import os
import subprocess
import sys

from parallel.ranks import mpiexec


def test_parallel_from_the_command_line(repository, tmp_path):
    mpiexec()
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONSAFEPATH", "PMI_SIZE")}
    arguments = ["--workloads", "mlp", "--rounds", "1", "--seconds", "0.2", "--json", str(tmp_path / "found.json")]
    command = [sys.executable, "-m", "benchmarks.parallel", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["exchange"]["bytes"]["ours"] / found["exchange"]["bytes"]["one_bit"] >= 28
    assert set(found["quantiser"]["beside_copy"]) >= {"pack_1", "unpack_1", "unpack_add_8"}
    for kind in ("full", "one_bit", "block_momentum", "asgd"):
        (record,) = found["train"]["mlp"][kind]
        assert record["samples_s"] > 0 and record["ms"]["compute"] > 0 and record["bytes"] > 0
    assert found["train"]["mlp"]["ddp"] == [None] and "no PyTorch" in done.stdout
