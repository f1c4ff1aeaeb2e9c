"""Runs CNTK 2.7's own tests over cogkit and compares how many pass, theme by theme, with `counts.json`, which may only rise.

    python -m cntk_compat.suite RUNNER [--update] [--theme 05 ...] [--arguments "--reasons 20"]

RUNNER is a program that fetches CNTK's tests and runs them against a package (`--package`); its output ends with lines of a theme
and `passed/all`. `make test-cntk` calls this. Exit status: 1 where a theme has fallen, 2 where RUNNER is not there.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COUNTS = HERE / "counts.json"
_LINE = re.compile(r"^(\d\d .*?)\s+(\d+)/(\d+)\s*$")


def run(runner: Path, themes: list[str], arguments: list[str]) -> dict[str, tuple[int, int]]:
    """Runs the tests, printing as they go; theme -> (passed, all)."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    environ = {"OMP_WAIT_POLICY": "passive", **os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    limits = ["--timeout", "3600", "--test-timeout", "900"]  # seconds of a file and a test: one writes and reads two gigabytes
    selected = [word for theme in themes for word in ("--theme", theme)]
    command = [sys.executable, str(runner), "--package", "cntk_compat", *limits, *selected, *arguments]
    found = {}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            match = _LINE.match(line)
            if match:
                found[match[1]] = int(match[2]), int(match[3])
            else:
                print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"make test-cntk: {runner} ended with status {process.returncode}")
    if not found:
        sys.exit(f"make test-cntk: expected lines of a theme and passed/all from {runner}, got none")
    return found


def compare(found: dict[str, tuple[int, int]], counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """The lines of the table, and the themes where fewer pass than did."""
    lines, fallen = [f"{'theme':34} {'passed':>6} {'of':>5} {'was':>5}"], []
    for theme, (passed, of) in sorted(found.items()):
        was = counts.get(theme, 0)
        change = "" if passed == was else f"  {passed - was:+d}"
        lines.append(f"{theme:34} {passed:6} {of:5} {was:5}{change}")
        if passed < was:
            fallen.append(theme)
    total = [sum(p for p, _ in found.values()), sum(n for _, n in found.values()), sum(counts.get(t, 0) for t in found)]
    return [*lines, f"{'all':34} {total[0]:6} {total[1]:5} {total[2]:5}"], fallen


def raised(found: dict[str, tuple[int, int]], counts: dict[str, int]) -> dict[str, int]:
    """The counts, each the higher of what it was and what was found."""
    return {theme: max(counts.get(theme, 0), found.get(theme, (0, 0))[0]) for theme in sorted({*counts, *found})}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="cntk_compat.suite")
    parser.add_argument("runner", type=Path)
    parser.add_argument("--update", action="store_true", help="raise the counts of themes where more pass than did")
    parser.add_argument("--theme", action="append", default=[], help="run these themes alone (repeatable)")
    parser.add_argument("--arguments", default="", help="more arguments of the runner, as one word")
    options = parser.parse_args(arguments)
    if not options.runner.is_file():
        print(
            f"make test-cntk: expected the runner of CNTK 2.7's own tests at {options.runner}, found no such file; "
            "name it: make test-cntk CNTK_SUITE=/path/to/run_suite.py"
        )
        return 2
    counts = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.exists() else {}
    found = run(options.runner, options.theme, shlex.split(options.arguments))
    lines, fallen = compare(found, counts)
    print("\n".join(lines))
    if options.update and raised(found, counts) != counts:
        aside = COUNTS.with_suffix(".new")
        aside.write_text(json.dumps(raised(found, counts), indent=2) + "\n", encoding="utf-8")
        aside.replace(COUNTS)
    for theme in fallen:
        print(f"make test-cntk: {theme}: expected at least {counts[theme]} passed, got {found[theme][0]}")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
