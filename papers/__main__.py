"""python -m cogkit.papers: the papers' commands, which the Snakefile strings together and a person may call alone."""

import argparse
import json
import sys
from pathlib import Path

from cogkit.errors import DataError
from cogkit.papers.sheets import PROFILES, SheetError, find_papers, read_paper


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cogkit.papers", description="Run the papers again, from data to report.")
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder of the papers (default: ./papers, else those of the package)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="papers, their profiles and runs")
    check = commands.add_parser("check", help="check the sheets of all papers, or of those named")
    check.add_argument("slugs", nargs="*")
    data = commands.add_parser("data", help="prepare one data set and write its stamp")
    data.add_argument("name")
    data.add_argument("size")
    data.add_argument("--out", type=Path, required=True, metavar="STAMP.json")
    data.add_argument("--given", default=None, help="folder or archive that holds the original files")
    data.add_argument(
        "--must", action="store_true", help="fail where the data set cannot be had, instead of saying so in the stamp"
    )
    run = commands.add_parser("run", help="train one row of runs.csv; continues a killed run")
    run.add_argument("slug")
    run.add_argument("profile", choices=PROFILES)
    run.add_argument("run")
    run.add_argument("--out", type=Path, required=True, metavar="RECORD.json")
    run.add_argument("--stamps", type=Path, nargs="*", default=None, help="stamps of the row's data (default: prepared now)")
    run.add_argument("--work", type=Path, default=Path("build/papers"), help="checkpoints (default: build/papers)")
    run.add_argument("--log", type=Path, default=None)
    table = commands.add_parser("table", help="table, figures and verdicts from the records")
    table.add_argument("slug")
    table.add_argument("profile", choices=PROFILES)
    report = commands.add_parser("report", help="one page with all papers that have runs in the profile")
    report.add_argument("profile", choices=PROFILES)
    for command in (table, report):
        command.add_argument("--results", type=Path, default=Path("results"))
    asked = parser.parse_args(arguments)
    folder = asked.folder or papers_folder()
    try:
        return _COMMANDS[asked.command](asked, folder)
    except SheetError as error:
        print(error, file=sys.stderr)
        return 2
    except DataError as error:
        print(error, file=sys.stderr)
        return 1


def papers_folder() -> Path:
    """./papers where there is one, else the package's own folder."""
    here = Path("papers")
    return here if find_papers(here) else Path(__file__).parent


def _list(asked, folder: Path) -> int:
    for slug in find_papers(folder):
        paper = read_paper(folder / slug)
        counts = ", ".join(f"{p}: {len(paper.profile(p))} runs" for p in PROFILES if paper.profile(p))
        print(f"{slug}: {paper.title} ({counts})")
    return 0


def _check(asked, folder: Path) -> int:
    faults: list[str] = []
    slugs = asked.slugs or find_papers(folder)
    for slug in slugs:
        try:
            read_paper(folder / slug)
        except SheetError as error:
            faults += error.faults
    print("\n".join(faults) or f"{len(slugs)} papers are in order", file=sys.stderr if faults else sys.stdout)
    return 2 if faults else 0


def _data(asked, folder: Path) -> int:
    from cogkit.papers.datasets import prepare_data

    prepare_data(asked.name, asked.size, asked.out, asked.given, asked.must)
    return 0


def _run(asked, folder: Path) -> int:
    from cogkit.papers.running import Stopped, run_once

    paper = read_paper(folder / asked.slug)
    row = paper.find(asked.profile, asked.run)
    if asked.stamps is None:
        from cogkit.papers.datasets import prepare_data

        stamps = [prepare_data(n, s, Path("build/data") / f"{n}.{s}.json", must=True) for n, s in row.data]
    else:
        stamps = [json.loads(p.read_text(encoding="utf-8")) for p in asked.stamps]
        given, wanted = [(s["data"], s["size"]) for s in stamps], list(row.data)
        if given != wanted:
            raise ValueError(f"run '{row.name}': expected stamps of {wanted}, got {given}")
    try:
        record = run_once(paper, row, stamps, asked.out, asked.work, asked.log)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 130
    said = record["reason"] or ", ".join(
        f"{k} {v:.4g}" if v is not None else f"{k} diverged" for k, v in record["results"].items()
    )
    print(f"{asked.slug} {row.name}: {record['status']}: {said}", file=sys.stderr)
    return 0


def _table(asked, folder: Path) -> int:
    from cogkit.papers.tables import make_table

    content = make_table(read_paper(folder / asked.slug), asked.profile, asked.results)
    for v in content["verdicts"]:
        print(f"{asked.slug} {v['claim']}: {v['verdict']} ({v['reason']})", file=sys.stderr)
    return 0


def _report(asked, folder: Path) -> int:
    from cogkit.papers.report import make_report

    papers = [read_paper(folder / slug) for slug in find_papers(folder)]
    path = make_report(asked.profile, [p.slug for p in papers if p.profile(asked.profile)], asked.results)
    print(path)
    return 0


_COMMANDS = {"list": _list, "check": _check, "data": _data, "run": _run, "table": _table, "report": _report}

if __name__ == "__main__":
    sys.exit(main())
