"""Runs after all other tests of this folder: each kernel of each family has been launched by one of them."""

import subprocess

from cogkit.engine.cuda import driver, images

NEVER = set()  # kernels that no test launches, each with a reason beside it


def test_each_kernel_has_been_launched(cuda_environment):
    """The names that the emulation's objects export against those that launches were made of."""
    there = set()
    for source in sorted(images.FOLDER.glob("*.cu")):
        family, text = source.stem, source.read_text()
        images.compiled(family, text, "sm_90")
        made = images.kept(family, text, "sm_90")
        listed = subprocess.run(["nm", "-D", "--defined-only", made], capture_output=True, text=True, check=True).stdout
        names = [line.split()[-1] for line in listed.splitlines()]
        there |= {f"{family}.{n.removeprefix('cudacpu_')}" for n in names if n.startswith("cudacpu_")}
    missing = there - driver.launched - NEVER
    print(f"{len(there) - len(missing)} of {len(there)} kernels")
    assert there and not missing, f"no case for {', '.join(sorted(missing))}"
