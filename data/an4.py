"""AN4 (Carnegie Mellon, 1991) as CNTK's speech example has it: 948 utterances, 252,734 frames of 33 numbers, 132 states.

The user gives the example's folder of data (glob_0000.scp, glob_0000.mlf, state.list and the features that the script names). It has
no test part, so every tenth speaker is tested on here, and the one before is dev.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cogkit.data.htk_corpus import build_corpus, find
from cogkit.data.recipe import GivenRecipe, Tick

__all__ = ["RECIPE"]


def speaker(key: str) -> str:
    """`fjam` of An4/71/71/cen5-fjam-b; the whole name where there is none."""
    parts = key.rpartition("/")[2].split("-")
    return parts[1] if len(parts) == 3 else key


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    build_corpus(RECIPE, speaker, files, out, generator, tick)


RECIPE = GivenRecipe(
    name="an4",
    title="AN4 as CNTK's speech example has it, 33 features, 132 states",
    licence="none stated (Carnegie Mellon University, 1991)",
    items=(),
    routes=(),
    sizes={"full": (0, 0)},
    build=build,
    folder=True,
    wanted="glob_0000.scp, glob_0000.mlf and state.list of CNTK's AN4 example, and its features",
    find=find,
)
