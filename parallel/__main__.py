"""`mpiexec -n 4 python -m cogkit.parallel train.py`: as `python -m mpi4py`, and says which rank was killed, and by which signal.

A launcher ends all ranks at once when one of them is killed, so that none of them can say anything: a parent of each rank does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

__all__ = ["main"]

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Of a child on Linux: it is killed when its parent is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Runs the script, or what else mpi4py runs, in a child; its exit code, 128 and the signal where it was killed."""
    if len(sys.argv) < 2:
        print("usage: mpiexec -n RANKS python -m cogkit.parallel script.py [ARGUMENT...]", file=sys.stderr)
        return 2
    # what the launcher has opened for the rank must stay open in the child
    child = subprocess.Popen([sys.executable, "-m", "mpi4py", *sys.argv[1:]], close_fds=False, preexec_fn=_die_with_parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, frame: child.send_signal(which))
    code = child.wait()
    if code >= 0:
        return code
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "?")
    why = "; often the machine has run out of memory" if -code == signal.SIGKILL else ""
    print(f"rank {rank} was killed by {signal.Signals(-code).name} (process {child.pid}){why}", file=sys.stderr, flush=True)
    return 128 - code


if __name__ == "__main__":
    sys.exit(main())
