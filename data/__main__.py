"""Command line: python -m cogkit.data list | prepare NAME | check FILE."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cogkit.data.folder import open_folder
from cogkit.data.format import open_dataset
from cogkit.data.recipe import GivenRecipe, cache_folder, prepare, recipes
from cogkit.errors import DataError


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 with one message on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m cogkit.data",
        description="Fetch, verify and prepare data sets.",
        epilog=f"Fetched files are kept in {cache_folder()} (set COGKIT_DATA to move it).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the data sets, their sizes and how to give a path")
    p = commands.add_parser("prepare", help="make the prepared file of a data set")
    p.add_argument("name")
    p.add_argument("--size", default="full", help="'quick', 'full' or TRAIN,TEST (default: full)")
    p.add_argument("--out", help="the file or folder to make (default: in the cache folder)")
    p.add_argument("--path", help="a folder or archive that has the original files: nothing is fetched then")
    p.add_argument("--seed", type=int, default=0, help="of generated data")
    p.add_argument("--force", action="store_true", help="make it even if it is there")
    p.add_argument("--quiet", action="store_true")
    c = commands.add_parser("check", help="read a prepared file or folder whole and compare its SHA-256")
    c.add_argument("file")
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            for r in recipes().values():
                sizes = "; ".join(f"{k} {a}+{b}" for k, (a, b) in r.sizes.items())
                what = f"made of what {r.variable} names" if isinstance(r, GivenRecipe) else sizes
                print(f"{r.name:15} {r.title} ({what}); {r.licence}; {r.variable}")
        elif args.command == "prepare":
            print(prepare(args.name, args.out, args.size, args.path, args.seed, args.force, args.quiet))
        else:
            dataset = (open_folder if Path(args.file).is_dir() else open_dataset)(args.file, verify=True)
            print(f"{dataset!r} sha256 {dataset.hash}")
    except DataError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
