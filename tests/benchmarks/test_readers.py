"""The benchmark of readers runs without CNTK, and all that it read is there."""

import json
import os
import subprocess
import sys


def test_readers_from_the_command_line(repository, tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    arguments = [
        "--megabytes",
        "0.2",
        "--times",
        "2",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "found.json"),
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run([sys.executable, "-m", "benchmarks.readers", *arguments], capture_output=True, text=True, cwd=repository, env=env,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(f["corpus"], f["randomize"]) for f in found] == [
        (c, r) for c in ("dense", "sparse", "htk") for _ in (1, 2) for r in (False, True)
    ]
    assert all(f["speed"]["cogkit"] > 0 and f["rounds"]["cogkit"][0]["samples"] > 0 for f in found)
    assert len(done.stdout.splitlines()) == 2 + len(found) and [p.name for p in tmp_path.iterdir()] == ["found.json"]
