"""Runs a piece of Python on real MPI ranks, in processes of their own, with a limit on time."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def mpiexec() -> str:
    """The launcher beside this Python, or skips the test where there is none."""
    found = shutil.which("mpiexec", path=os.path.dirname(sys.executable))
    if found is None or subprocess.run([sys.executable, "-c", "import mpi4py"], capture_output=True).returncode:
        pytest.skip("no mpi4py with mpiexec in this environment: pip install mpi4py mpich")
    return found


def run_ranks(n, body, folder, module="mpi4py", timeout=90, check=True, **environment):
    """Runs text as a script on n ranks; `world`, `np`, `C` are there. Returns the finished process; its output is text.

    module: what runs it, "" for nothing. environment: variables beside this process's own. check: it must succeed.
    """
    script = Path(folder) / "script.py"
    start = (
        "import sys\nsys.path.insert(0, %r)\nimport numpy as np\nimport cogkit as C\nfrom cogkit.parallel import current_world\n"
    )
    script.write_text(start % str(TESTS) + "world = current_world()\n" + textwrap.dedent(body))
    command = [mpiexec(), "-n", str(n), sys.executable, *(["-m", module] if module else []), str(script)]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMP_NUM"))}
    own.update(PYTHONSAFEPATH="1", OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1", **environment)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=own, cwd=folder)
    if check and done.returncode:
        raise AssertionError(f"{n} ranks ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}")
    return done
