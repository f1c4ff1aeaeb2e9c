"""The sheets of a paper's folder: runs.csv, claims.csv, published.csv, read and checked before anything runs.

A sheet is data, so its mistakes are named as a reader would point at them: file, line, column, what was expected, what is there.
"""

import ast
import csv
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Claim", "Paper", "Published", "Run", "SheetError", "find_papers", "parse_condition", "read_paper"]

PROFILES = ("smoke", "quick", "desk", "paper")
TESTS = ("welch", "paired", "exact")
TAGS = {"V": "verified", "S": "secondary", "D": "derived", "M": "unverified", "M-low": "unverified"}
FILES = ("README.md", "published.csv", "claims.csv", "model.py", "train.py", "runs.csv")
RUN_COLUMNS = ("profile", "run", "group", "data", "seed")
CLAIM_COLUMNS = ("claim", "profile", "text", "holds_if", "test", "confidence")
PUBLISHED_COLUMNS = ("table", "row", "metric", "data", "value", "std", "runs", "tag", "source")

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
DATA = re.compile(r"[a-z][a-z0-9_]*:[a-z0-9][a-z0-9_.,-]*")
TERM = re.compile(
    r"\s*(?P<sign>[+-]?)\s*(?:(?P<number>\d+(?:\.\d+)?)\s*(?P<times>\*)?\s*)?(?:(?P<metric>[a-z]\w*)\s*\(\s*(?P<group>[^()\s]+)\s*\))?"
)


class SheetError(ValueError):
    """A paper's folder breaks the contract; `faults` holds one line for each mistake."""

    def __init__(self, faults: Iterable[str]):
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Run:
    """One row of runs.csv: one training of one configuration with one seed."""

    paper: str
    profile: str
    name: str
    group: str
    data: tuple[tuple[str, str], ...]  # (data set, size)
    seed: int
    knobs: dict[str, object] = field(hash=False)
    line: int = 0

    def as_dict(self) -> dict:
        """What defines the run's numbers, ready for JSON; where the row stands in the sheet is no part of it."""
        data = [f"{name}:{size}" for name, size in self.data]
        return {"paper": self.paper, "profile": self.profile, "run": self.name, "group": self.group} | {
            "data": data,
            "seed": self.seed,
            "knobs": dict(self.knobs),
        }


@dataclass(frozen=True)
class Claim:
    """What must hold, as a comparison of means: sum of coefficient * metric(group) above `threshold`, or equal to it (==)."""

    name: str
    profile: str
    text: str
    condition: str
    terms: tuple[tuple[float, str, str], ...]  # (coefficient, metric, group)
    threshold: float
    test: str
    confidence: float


@dataclass(frozen=True)
class Published:
    """One figure of the paper, or of CNTK, with the tag that says how well it is known."""

    table: str
    row: str
    metric: str
    data: str
    value: float
    std: float | None
    runs: int | None
    tag: str
    source: str

    @property
    def standing(self) -> str:
        return TAGS[self.tag]

    @property
    def verified(self) -> bool:
        return self.tag in ("V", "S", "D")


@dataclass(frozen=True)
class Paper:
    """A paper's folder, read and found whole."""

    slug: str
    folder: Path
    title: str
    summary: str
    metrics: dict[str, str]  # name -> label with its unit, as train.py declares them
    runs: tuple[Run, ...]
    claims: tuple[Claim, ...]
    published: tuple[Published, ...]
    code: str  # fingerprint of the folder's Python files

    def profile(self, name: str) -> list[Run]:
        return [r for r in self.runs if r.profile == name]

    def find(self, profile: str, run: str) -> Run:
        for row in self.runs:
            if (row.profile, row.name) == (profile, run):
                return row
        known = ", ".join(r.name for r in self.profile(profile)) or "none"
        raise ValueError(f"{self.folder / 'runs.csv'}: expected a run of profile '{profile}', got '{run}'; its runs: {known}")


def find_papers(folder: Path) -> list[str]:
    """Slugs of all papers below `folder`: whatever has a runs.csv."""
    return sorted(p.parent.name for p in Path(folder).glob("*/runs.csv"))


def read_paper(folder: Path | str) -> Paper:
    """A whole paper folder. Raises SheetError that lists every fault of every sheet at once."""
    folder = Path(folder)
    missing = [
        f"{folder}: expected {name} (every paper has {', '.join(FILES)}), found none"
        for name in FILES
        if not (folder / name).is_file()
    ]
    if not folder.name.isidentifier():
        missing.append(f"{folder}: expected a folder name that is a Python name, got '{folder.name}'")
    if missing:
        raise SheetError(missing)
    faults: list[str] = []
    metrics = _read_metrics(folder / "train.py", faults)
    runs = _read_runs(folder, faults)
    groups = {p: {r.group for r in runs if r.profile == p} for p in PROFILES}
    claims = _read_claims(folder / "claims.csv", groups, metrics, faults)
    published = _read_published(folder / "published.csv", metrics, faults)
    if faults:
        raise SheetError(faults)
    title, summary = _read_opening(folder / "README.md")
    return Paper(
        folder.name,
        folder,
        title or folder.name,
        summary,
        metrics,
        tuple(runs),
        tuple(claims),
        tuple(published),
        fingerprint(folder),
    )


def fingerprint(folder: Path) -> str:
    """Hash of what the folder's Python files do: comments, blank space and docstrings may change freely."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        digest.update(f"{path.relative_to(folder)}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def key_of(row: dict, code: str, data: Iterable[str]) -> str:
    """Name of everything that a run's numbers may depend on: its row, the paper's code, its data."""
    return hashlib.sha256(json.dumps([row, code, list(data)], sort_keys=True).encode()).hexdigest()[:16]


def parse_condition(text: str) -> tuple[tuple[tuple[float, str, str], ...], float]:
    """`error(a) - error(b) > 0.5` -> (((1, 'error', 'a'), (-1, 'error', 'b')), 0.5), read as "above", or with == as "equal".

    Either side may hold terms `metric(group)`, `2 * metric(group)` and numbers. Raises ValueError with the place that it cannot
    read.
    """
    sides = re.split(r"(<=|>=|==|<|>)", text)
    if len(sides) != 3:
        raise ValueError(f"expected two sides around one of < <= > >= ==, got '{text}'")
    left, sign, right = sides
    terms: dict[tuple[str, str], float] = {}
    threshold = 0.0
    for side, factor in ((left, 1.0), (right, -1.0)):
        position, first = 0, True
        while first or position < len(side.rstrip()):
            match = TERM.match(side, position)
            assert match is not None  # every part of the pattern may be empty
            number, metric = match["number"], match["metric"]
            if not (number or metric) or (match["times"] and not metric) or (number and metric and not match["times"]):
                raise ValueError(f"expected metric(group) or a number at '{side[position:].strip()}' in '{text}'")
            if not first and not match["sign"]:
                raise ValueError(f"expected + or - before '{side[position:].strip()}' in '{text}'")
            value = factor * (-1.0 if match["sign"] == "-" else 1.0) * float(number or 1)
            if metric:
                at = (metric, match["group"])
                terms[at] = terms.get(at, 0.0) + value
            else:
                threshold -= value
            position, first = match.end(), False
    if not terms:
        raise ValueError(f"expected at least one metric(group), got '{text}'")
    turn = -1.0 if "<" in sign else 1.0
    return tuple((turn * c, m, g) for (m, g), c in terms.items()), turn * threshold + 0.0


class _Rows:
    """Lines of one sheet as dicts, and the faults found in them."""

    def __init__(self, path: Path, columns: tuple[str, ...], faults: list[str], extra: bool = False):
        self.path, self.faults, self.rows = path, faults, []
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            self.header = [h.strip() for h in next(reader, [])]
            absent = [c for c in columns if c not in self.header]
            if absent:
                faults.append(
                    f"{path}:1: expected the columns {', '.join(absent)} too, got {', '.join(self.header) or 'nothing'}"
                )
            for twice in sorted({h for h in self.header if self.header.count(h) > 1}):
                faults.append(f"{path}:1: column '{twice}': expected once, got {self.header.count(twice)} times")
            if not extra:
                for name in [h for h in self.header if h not in columns]:
                    faults.append(f"{path}:1: column '{name}': expected one of {', '.join(columns)}")
            self.usable = not absent
            for cells in reader:
                if not any(c.strip() for c in cells):
                    continue
                if len(cells) != len(self.header):
                    got = f"expected {len(self.header)} cells, got {len(cells)}; put a cell with a comma in quotes"
                    faults.append(f"{path}:{reader.line_num}: {got}")
                    continue
                row = {h: c.strip() for h, c in zip(self.header, cells, strict=True)}
                self.rows.append((reader.line_num, row))

    def fault(self, line: int, column: str, expected: str, got: str, way_out: str = "") -> None:
        self.faults.append(
            f"{self.path}:{line}: column '{column}': expected {expected}, got '{got}'" + (f"; {way_out}" if way_out else "")
        )

    def __iter__(self):
        return iter(self.rows if self.usable else [])


def _read_metrics(path: Path, faults: list[str]) -> dict[str, str]:
    """METRICS of train.py, read from its text: the sheets can be checked where nothing is built yet."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        faults.append(f"{path}:{error.lineno}: {error.msg}")
        return {}
    if not any(isinstance(n, ast.FunctionDef) and n.name == "run" and len(n.args.args) == 3 for n in tree.body):
        faults.append(f"{path}: expected a function run(row, data, out), found none")
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "METRICS" for t in node.targets):
            try:
                metrics = ast.literal_eval(node.value)
            except ValueError:
                metrics = None
            if isinstance(metrics, dict) and metrics and all(isinstance(x, str) for pair in metrics.items() for x in pair):
                return metrics
            faults.append(f"{path}:{node.lineno}: METRICS: expected a literal {{name: label with unit}}, got something else")
            return {}
    faults.append(f"{path}: expected METRICS = {{name: label with unit}}, the numbers that run() returns; found none")
    return {}


def _read_runs(folder: Path, faults: list[str]) -> list[Run]:
    sheet = _Rows(folder / "runs.csv", RUN_COLUMNS, faults, extra=True)
    knobs = [h for h in sheet.header if h not in RUN_COLUMNS]
    for name in knobs:
        if not name.isidentifier():
            faults.append(f"{sheet.path}:1: column '{name}': expected a Python name, since training reads row.{name or 'knob'}")
    kinds = {k: _column_kind([row[k] for _, row in sheet]) for k in knobs}
    runs: list[Run] = []
    names: dict[tuple[str, str], int] = {}
    seeds: dict[tuple[str, str, str], int] = {}
    groups: dict[tuple[str, str], tuple[int, dict]] = {}
    for line, row in sheet:
        before = len(faults)
        profile, name, group, seed = row["profile"], row["run"], row["group"], row["seed"]
        if profile not in PROFILES:
            sheet.fault(line, "profile", f"one of {', '.join(PROFILES)}", profile)
        for column in ("run", "group"):
            if not NAME.fullmatch(row[column]):
                sheet.fault(line, column, "a name of a-z 0-9 _ . -", row[column])
        if not re.fullmatch(r"\d+", seed):
            sheet.fault(line, "seed", "a whole number from 0", seed)
        data = [] if row["data"] == "none" else row["data"].split()
        if not row["data"] or not all(DATA.fullmatch(d) for d in data):
            sheet.fault(line, "data", "dataset:size, several with spaces between, or none", row["data"])
        values = {}
        for knob in knobs:
            if row[knob] == "":
                sheet.fault(line, knob, "a value", "", "a row states every knob")
                continue
            try:
                values[knob] = _KINDS[kinds[knob]](row[knob])
            except ValueError:
                sheet.fault(line, knob, f"{kinds[knob]} as in the rest of the column", row[knob])
        if len(faults) > before:
            continue
        if (profile, name) in names:
            sheet.fault(line, "run", "a name used once in a profile", name, f"line {names[profile, name]} has it too")
        if (profile, group, seed) in seeds:
            sheet.fault(
                line, "seed", "each seed once in a group", seed, f"line {seeds[profile, group, seed]} would be counted twice"
            )
        settings = values | {"data": row["data"]}
        first, theirs = groups.setdefault((profile, group), (line, settings))
        for column, value in settings.items():
            if theirs[column] != value:
                sheet.fault(
                    line,
                    column,
                    f"{theirs[column]} as on line {first}",
                    str(value),
                    f"runs of group '{group}' differ in the seed alone",
                )
        names.setdefault((profile, name), line)
        seeds.setdefault((profile, group, seed), line)
        parts = tuple((d.split(":")[0], d.split(":")[1]) for d in data)
        runs.append(Run(folder.name, profile, name, group, parts, int(seed), values, line))
    if sheet.usable and not sheet.rows:
        faults.append(f"{sheet.path}: expected at least one run, found none")
    return runs


def _whole(text: str) -> int:
    return int(text)


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_KINDS = {"true or false": _yes, "a whole number": _whole, "a number": float, "text": str}


def _column_kind(cells: list[str]) -> str:
    """The narrowest kind that most cells of the column have; the others are then faults, not silently text."""
    best, most = "text", 0
    for kind, convert in _KINDS.items():
        good = 0
        for cell in cells:
            try:
                convert(cell)
                good += 1
            except ValueError:
                pass
        if kind == "text":  # takes everything: only where less than half of the column is anything narrower
            good = (len(cells) + 1) // 2
        if good > most:
            best, most = kind, good
    return best


def _read_claims(path: Path, groups: dict[str, set[str]], metrics: dict[str, str], faults: list[str]) -> list[Claim]:
    sheet = _Rows(path, CLAIM_COLUMNS, faults)
    claims: list[Claim] = []
    seen: dict[tuple[str, str], int] = {}
    for line, row in sheet:
        before = len(faults)
        if not NAME.fullmatch(row["claim"]):
            sheet.fault(line, "claim", "a name of a-z 0-9 _ . -", row["claim"])
        if row["profile"] not in PROFILES:
            sheet.fault(line, "profile", f"one of {', '.join(PROFILES)}", row["profile"])
        if not row["text"]:
            sheet.fault(line, "text", "the claim in words", "")
        if row["test"] not in TESTS:
            sheet.fault(line, "test", f"one of {', '.join(TESTS)}", row["test"])
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", row["confidence"])
        if not match or not 50 < float(match[1]) < 100:
            sheet.fault(line, "confidence", "a percentage between 50 % and 100 %", row["confidence"])
        terms: tuple = ()
        threshold = 0.0
        try:
            terms, threshold = parse_condition(row["holds_if"])
        except ValueError as error:
            faults.append(f"{path}:{line}: column 'holds_if': {error}")
        if "==" in row["holds_if"] and row["test"] != "exact":
            sheet.fault(line, "test", "exact for a claim of equality", row["test"], "noise makes no two means equal")
        for _, metric, group in terms:
            if metrics and metric not in metrics:
                sheet.fault(line, "holds_if", f"a metric of train.py ({', '.join(metrics)})", metric)
            known = groups.get(row["profile"], set())
            if row["profile"] in PROFILES and group not in known:
                sheet.fault(
                    line, "holds_if", f"a group of profile {row['profile']} ({', '.join(sorted(known)) or 'it has none'})", group
                )
        if (row["claim"], row["profile"]) in seen:
            sheet.fault(
                line,
                "claim",
                "a name used once in a profile",
                row["claim"],
                f"line {seen[row['claim'], row['profile']]} has it too",
            )
        seen.setdefault((row["claim"], row["profile"]), line)
        if len(faults) == before:
            confidence = float(match[1]) / 100  # type: ignore[index]
            claims.append(
                Claim(row["claim"], row["profile"], row["text"], row["holds_if"], terms, threshold, row["test"], confidence)
            )
    return claims


def _read_published(path: Path, metrics: dict[str, str], faults: list[str]) -> list[Published]:
    sheet = _Rows(path, PUBLISHED_COLUMNS, faults)
    published = []
    seen: dict[tuple[str, ...], int] = {}
    for line, row in sheet:
        before = len(faults)
        for column in ("table", "row", "source"):
            if not row[column]:
                sheet.fault(line, column, "a text", "")
        if metrics and row["metric"] not in metrics:
            sheet.fault(line, "metric", f"a metric of train.py ({', '.join(metrics)})", row["metric"])
        if row["tag"] not in TAGS:
            sheet.fault(line, "tag", f"one of {', '.join(TAGS)}", row["tag"], "a number that no source shows is no row")
        numbers: dict[str, float | None] = {}
        for column, needed in (("value", True), ("std", False), ("runs", False)):
            try:
                numbers[column] = float(row[column]) if row[column] or needed else None
            except ValueError:
                sheet.fault(line, column, "a number", row[column])
        at = (row["table"], row["row"], row["metric"], row["data"])
        if at in seen:
            sheet.fault(line, "row", "a figure once in a table", row["row"], f"line {seen[at]} has it too")
        seen.setdefault(at, line)
        if len(faults) == before:
            runs = None if numbers["runs"] is None else int(numbers["runs"])
            value = numbers["value"]
            assert value is not None
            published.append(Published(*at, value, numbers["std"], runs, row["tag"], row["source"]))
    return published


def _read_opening(path: Path) -> tuple[str, str]:
    """Heading and first paragraph of a README."""
    title, paragraph = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            if paragraph:
                break
            title = title or line.lstrip("# ").strip()
        elif line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            break
    return title, " ".join(paragraph)
