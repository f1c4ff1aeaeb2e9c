"""Writes coming_from_cntk.md: CNTK 2.7's public names one by one, and whether cogkit has each (`make docs`).

cntk_names.csv holds what CNTK has, by introspection; what cogkit has is looked up here, names and arguments; cntk_notes.csv says
what looking up cannot: a different meaning, or why something is not there.
"""

from __future__ import annotations

import ast
import csv
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
NAMES, NOTES, PAGE = HERE / "cntk_names.csv", HERE / "cntk_notes.csv", HERE / "coming_from_cntk.md"
_NOTHING = object()

INTRODUCTION = """\
# Coming from CNTK

Change `import cntk as C` to `import cogkit as C`, and `from cntk.X import Y` to `from cogkit.X import Y`. This page goes through the
public names of CNTK 2.7's Python API. It is generated (`make docs`); a test compares it with the code.

*same*: there, with CNTK's arguments in CNTK's order and with its defaults; more may follow them. *differs*: there, and the note says
how. *not here*: the note says why, or what does its work. A note after *same* is a difference of meaning. Models and checkpoints that
CNTK wrote are another matter: see the README.
"""


class Name(NamedTuple):
    """A public name of CNTK: its module, itself (`Class.member` for members), what it is, its arguments or value."""

    module: str
    name: str
    kind: str
    signature: str

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"


class Entry(NamedTuple):
    """What the page says of a name."""

    name: Name
    status: str  # same, differs, not here
    note: str


def read_names() -> list[Name]:
    """CNTK's names, in its order of modules."""
    with open(NAMES, encoding="utf-8", newline="") as f:
        return [Name(**row) for row in csv.DictReader(f)]


def read_notes() -> dict[str, tuple[str, str]]:
    """Full name, or module, or module with `.*` -> (status or '', note)."""
    with open(NOTES, encoding="utf-8", newline="") as f:
        return {row["name"]: (row["status"], row["note"]) for row in csv.DictReader(f)}


def find(name: Name) -> Any:
    """cogkit's object of that name; `_NOTHING` where there is none."""
    try:
        found: Any = importlib.import_module("cogkit" + name.module.removeprefix("cntk"))
    except ImportError:
        return _NOTHING
    owner: Any = None
    for word in name.name.split("."):
        owner, found = found, getattr(found, word, _NOTHING)
        if found is _NOTHING:
            return _of_instances(owner, word)
    return found


def _of_instances(owner: Any, word: str) -> Any:
    """An attribute that the methods of a class set or that its annotations name."""
    for c in inspect.getmro(owner) if inspect.isclass(owner) else ():
        if word in getattr(c, "__annotations__", {}) or word in getattr(c, "__slots__", ()):
            return property()
        if c.__module__.startswith("cogkit") and re.search(rf"self\.{word}\b[^=\n]*=[^=]", inspect.getsource(c)):
            return property()
    return _NOTHING


def arguments(signature: str) -> list[tuple[str, str | None]]:
    """(name, default as text or None) of each argument of a signature as text; stars stay with their names."""
    parts, depth, last = [], 0, ""
    for c in signature.strip()[1:-1]:
        depth += c in "([{<"
        depth -= c in ")]}>"
        if c == "," and not depth:
            parts.append(last)
            last = ""
        else:
            last += c
    pairs = [p.strip().partition("=") for p in [*parts, last] if p.strip()]
    return [(a.strip(), d.strip() if equals else None) for a, equals, d in pairs]


def compare(name: Name, ours: Any) -> str:
    """How our arguments differ from CNTK's; '' where a call for CNTK's is good for ours."""
    if name.kind not in ("function", "method", "class") or not name.signature or not callable(ours):
        return ""
    theirs = arguments(name.signature)
    if any(a.startswith("*") for a, _ in theirs):
        return ""
    try:
        mine = [p for p in inspect.signature(ours).parameters.values() if p.name not in ("self", "cls")]
    except (TypeError, ValueError):
        return ""
    if any(p.kind is p.VAR_POSITIONAL for p in mine):
        return ""
    shown = "(" + ", ".join(_shown(p) for p in mine) + ")"
    positional = [p for p in mine if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if [a for a, _ in theirs] != [p.name for p in positional[: len(theirs)]]:
        return f"arguments: `{shown}`"
    more = [p.name for p in positional[len(theirs) :] if p.default is p.empty]
    if more:
        return f"arguments: `{shown}`"
    notes = []
    for (a, default), p in zip(theirs, positional, strict=False):
        if default is None or p.default is p.empty:
            if default is not None:
                notes.append(f"`{a}` must be given")
            continue
        known = _literal(default)
        if known is not _NOTHING and not _alike(known, p.default):
            notes.append(f"default of `{a}`: `{p.default!r}`, CNTK's `{default}`")
    return "; ".join(notes)


def _shown(p: inspect.Parameter) -> str:
    star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
    default = "" if p.default is p.empty or not isinstance(p.default, (type(None), bool, int, float, str)) else f"={p.default!r}"
    return f"{star}{p.name}{default or ('' if p.default is p.empty else '=...')}"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _NOTHING


def _alike(theirs: Any, mine: Any) -> bool:
    mine = getattr(mine, "value", mine)
    if isinstance(theirs, (list, tuple)):
        try:
            return list(theirs) == list(mine)
        except TypeError:
            return len(theirs) == 1 and theirs[0] == mine
    return theirs == mine


def judge(name: Name, notes: dict[str, tuple[str, str]]) -> Entry:
    """What the page says of one name."""
    keys = [name.full, f"{name.module}.{name.name.split('.')[0]}.*", f"{name.module}.*"]
    status, note = next((notes[k] for k in keys if k in notes), ("", ""))
    ours = find(name)
    if ours is _NOTHING:
        return Entry(name, status or "not here", note)
    difference = compare(name, ours)
    if difference and status != "same":
        return Entry(name, "differs", "; ".join(filter(None, (difference, note))))
    return Entry(name, status or "same", note)


def entries() -> list[Entry]:
    """Every name, judged."""
    notes = read_notes()
    return [judge(name, notes) for name in read_names()]


def page(of: list[Entry]) -> str:
    """The page as text."""
    lines = [INTRODUCTION]
    count = {s: sum(e.status == s for e in of) for s in ("same", "differs", "not here")}
    lines.append(f"{len(of)} names: {count['same']} same, {count['differs']} differ, {count['not here']} not here.\n")
    for module in dict.fromkeys(e.name.module for e in of):
        own = [e for e in of if e.name.module == module]
        lines.append(f"## {module}\n")
        plain = [e for e in own if e.status == "same" and not e.note]
        if plain:
            lines.append("same: " + ", ".join(f"`{e.name.name}`" for e in plain) + "\n")
        rest = [e for e in own if e not in plain]
        if rest:
            lines += ["| name | | note |", "| --- | --- | --- |"]
            lines += [f"| `{e.name.name}` | {e.status} | {e.note.replace('|', chr(92) + '|')} |" for e in rest]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Writes the page; with --list prints what has no note and needs one. Exit status 1 where that is not nothing."""
    of = entries()
    missing = [e for e in of if e.status == "not here" and not e.note]
    if "--list" in sys.argv[1:]:
        print("\n".join(e.name.full for e in missing))
        return bool(missing)
    PAGE.write_text(page(of), encoding="utf-8")
    print(f"{PAGE.name}: {len(of)} names, {len(missing)} not here and without a note")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
