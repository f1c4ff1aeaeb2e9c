"""results/<profile>/report.html: every paper's table, verdicts and figures on one page that needs no other file."""

import json
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from cogkit.papers.tables import EXCHANGES, NOT_RUN, _cell, _evidence, commit_text, format_number
from cogkit.papers.verdict import Verdict

__all__ = ["make_report"]

ORDER = ("holds", "fails", "undecided", NOT_RUN)


def make_report(profile: str, slugs: list[str], results: Path = Path("results")) -> Path:
    """Joins results/<slug>/<profile>/summary.json of all `slugs` into results/<profile>/report.html."""
    results = Path(results)
    papers = [_paper(results, slug, profile) for slug in slugs]
    counts = {v: sum(w["verdict"] == v for p in papers for w in p["verdicts"]) for v in ORDER}
    runs = [r for p in papers for r in p["runs"]]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cogkit.papers", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        profile=profile,
        papers=papers,
        counts=counts,
        provenance=_provenance(runs),
        duration=duration,
        number=format_number,
        commit=commit_text,
    )
    path = results / profile / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(".report.html")
    aside.write_text(html, encoding="utf-8")
    aside.replace(path)
    return path


def _paper(results: Path, slug: str, profile: str) -> dict:
    folder = results / slug / profile
    content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    link = f"../{slug}/{profile}"
    groups: dict[str, dict] = {}
    for line in content["rows"]:
        group = groups.setdefault(line["group"], {"line": line, "cells": [], "published": []})
        line = {k: float("nan") if v is None and k in ("mean", "std") else v for k, v in line.items()}
        group["cells"].append({"text": _cell(line, set(content["counts"])), "metric": line["metric"]})
        group["published"].append([line[t] for t in content["published_tables"]])
    shown = [
        i for i, t in enumerate(content["published_tables"]) if any(row[i] for g in groups.values() for row in g["published"])
    ]
    for group in groups.values():
        group["published"] = ["; ".join(dict.fromkeys(row[i] for row in group["published"] if row[i])) for i in shown]
        group["runs"] = [r for r in content["runs"] if r["group"] == group["line"]["group"]]
        group["knobs"] = content["knobs"][group["line"]["group"]]
    figures = [(name, Markup(_inline(folder / "figures" / f"{name}.svg", f"{slug}-{name}"))) for name in content["figures"]]
    verdicts = [v | {"evidence": _evidence(Verdict(**v)), "badge": v["verdict"].replace(" ", "-")} for v in content["verdicts"]]
    unread = sorted({k for r in content["runs"] for k in r["knobs_not_read"]})
    return content | {
        "link": link,
        "groups": list(groups.values()),
        "published_shown": [content["published_tables"][i] for i in shown],
        "figures": figures,
        "verdicts": verdicts,
        "unread": unread,
        "exchanges": content.get("exchanges", []),  # summaries from before there were any
        "exchanges_head": EXCHANGES,
        "wall": sum(r["provenance"]["wall_s"] for r in content["runs"]),
    }


def _inline(path: Path, prefix: str) -> str:
    """The svg element alone, its ids made unique on the page, its size left to the page."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    for name in sorted(set(re.findall(r'\bid="([^"]+)"', text)), key=len, reverse=True):
        text = re.sub(rf'(id="|#){re.escape(name)}(?=["\)])', rf"\g<1>{prefix}-{name}", text)
    width = float(re.search(r'width="([\d.]+)pt"', text)[1])  # type: ignore[index]
    style = f"max-width: {1.45 * width:.0f}px; min-width: {width:.0f}px"  # on a phone a wide figure scrolls
    sizes = r'<svg ([^>]*?)\s*height="[^"]*"([^>]*?)\s*width="[^"]*"'
    return re.sub(sizes, rf'<svg role="img" style="{style}" \1\2', text, count=1)


def _provenance(runs: list[dict]) -> list[tuple[str, list[str]]]:
    """What the runs have in common, and where they differ all that they have."""
    found: dict[str, list[str]] = {}

    def add(name: str, value: object) -> None:
        values = found.setdefault(name, [])
        if value is not None and str(value) not in values:
            values.append(str(value))

    for run in runs:
        p = run["provenance"]
        add("commit", commit_text(p))
        m = p["machine"]
        add("machine", f"{m['cpu']}, {m['cpus']} CPUs, {m['memory_gib']} GiB, {m['system']}")
        add("engine", f"{p['engine']}, {p['threads']} threads")
        add("Python", p["python"])
        add("packages", ", ".join(f"{n} {v}" for n, v in p["packages"].items()))
        for name, digest in run["data_sha256"].items():
            add("data", f"{name} sha256 {digest}")
    return list(found.items())


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    s = round(seconds)
    return f"{s} s" if s < 60 else f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"
