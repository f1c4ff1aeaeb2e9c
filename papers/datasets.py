"""The data step: one prepared data set and its stamp, the small file that says where it is, its hash, or why there is none."""

import sys
from pathlib import Path

from cogkit.data.recipe import prepare, recipes
from cogkit.errors import DataError
from cogkit.papers.provenance import hash_files, write_json

__all__ = ["prepare_data"]


def prepare_data(name: str, size: str, stamp: Path, given: str | None = None, must: bool = False) -> dict:
    """Prepares data set `name` in `size` beside `stamp` (x.json -> x.cgd, or x.d where it is a folder) and writes the stamp.

    The stamp holds nothing that changes from day to day, so an unchanged data set asks for no new training. Where the data set
    cannot be had, the stamp says why; with `must` that is DataError. `given`: where the user has the original files.
    """
    stamp = Path(stamp)
    recipe = recipes().get(name)
    target = stamp.with_name(stamp.name.removesuffix(".json") + (recipe.suffix if recipe else ""))
    target.parent.mkdir(parents=True, exist_ok=True)
    content: dict = {"data": name, "size": size}
    try:
        prepare(name, target, size, given or None)
        maker = recipe.open(target).header["generator"]
        about = f"{recipe.title}; made by {maker['name']}, version {maker['version']}"
        content |= {"available": True, "path": str(target), "about": about, "sha256": hash_files(target)}
    except DataError as error:
        if must:
            raise
        reason = " ".join(str(error).split())
        print(f"{name}:{size} is not there: {reason}", file=sys.stderr)
        content |= {"available": False, "reason": reason}
    write_json(stamp, content)
    return content
