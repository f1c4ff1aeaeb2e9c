"""From run records to a paper's table, figures and verdicts. A number comes from a record or is absent."""

import json
import math
from pathlib import Path

import pandas as pd

from cogkit.papers.figures import draw_curves, draw_finals, draw_sizes
from cogkit.papers.provenance import write_json
from cogkit.papers.sheets import Paper
from cogkit.papers.verdict import Verdict, decide

__all__ = ["collect", "format_number", "make_table"]

NOT_RUN = "not run"
NO_SUCH = "no such number"  # of a metric that these runs do not have


def collect(paper: Paper, profile: str, folder: Path) -> tuple[list[dict], dict[str, str]]:
    """(records of finished runs in the sheet's order, {run: why it is not there}).

    A record is taken only if its row and code are those of the folder as it is now: a stale number is no number.
    """
    done, absent = [], {}
    for row in paper.profile(profile):
        path = Path(folder) / "runs" / f"{row.name}.json"
        if not path.is_file():
            absent[row.name] = "no record"
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        same = all(record.get(k) == v for k, v in row.as_dict().items())
        if not same or record.get("code") != paper.code:
            absent[row.name] = "its record is of an older " + ("train.py or model.py" if same else "row of runs.csv")
        elif record["status"] != "done":
            absent[row.name] = record["reason"]
        else:
            done.append(record | {"file": f"runs/{row.name}.json"})
    return done, absent


def format_number(x: float | None, std: float | None = None, whole: bool = False) -> str:
    """`12.34`, `12.34 ± 0.56`, as many decimals as the size calls for; `269,722` for a metric that is a count."""
    if x is None or not math.isfinite(x):
        return "diverged"
    size = abs(x)
    decimals = 0 if whole or size >= 1000 else 1 if size >= 100 else 2 if size >= 1 or size == 0 else 4
    text = f"{x:,.{decimals}f}"
    return text if std is None or (whole and not std) else f"{text} ± {std:,.{decimals}f}"


def _summary(paper: Paper, profile: str, done: list[dict], absent: dict[str, str]) -> pd.DataFrame:
    """One row for each group and metric: mean and std over seeds, where they came from, the published figures beside them."""
    tables = list(dict.fromkeys(p.table for p in paper.published))
    lines = []
    for group, rows in _groups(paper, profile).items():
        mine = [r for r in done if r["group"] == group]
        reasons = dict.fromkeys(absent[r.name] for r in rows if r.name in absent)
        data = " ".join(f"{n}:{s}" for n, s in rows[0].data) or "none"
        for metric, label in paper.metrics.items():
            values = [r["results"][metric] for r in mine if metric in r["results"]]
            finite = pd.Series([math.nan if v is None else v for v in values], dtype=float)
            whole = bool(values) and None not in values
            line = {
                "group": group,
                "data": data,
                "metric": metric,
                "label": label,
                "status": NOT_RUN
                if not mine
                else NO_SUCH
                if not values
                else "done"
                if len(values) == len(rows)
                else "partly run",
                "seeds_done": len(mine),
                "seeds_planned": len(rows),
                "mean": finite.mean() if whole else None,
                "std": finite.std(ddof=1) if whole and len(values) > 1 else None,
                "diverged": values.count(None),
                "reason": "; ".join(reasons),
                "files": " ".join(r["file"] for r in mine),
            }
            for table in tables:
                line[f"{table}"] = _published_cell(paper, table, group, metric, {n for n, _ in rows[0].data} | {"none"})
            lines.append(line)
    return pd.DataFrame(lines)


def commit_text(provenance: dict) -> str:
    """`5417de4a0b1c (clean)`, `no repository`."""
    commit, tree = provenance["commit"], provenance["tree"]
    return f"{commit[:12]} ({tree})" if commit else tree


def _groups(paper: Paper, profile: str) -> dict[str, list]:
    groups: dict[str, list] = {}
    for row in paper.profile(profile):
        groups.setdefault(row.group, []).append(row)
    return groups


def _published_cell(paper: Paper, table: str, group: str, metric: str, data: set[str]) -> str:
    """The paper's number for the same configuration on the same data, with its standing; empty where it has none.

    A figure whose data is "none" depends on no data (sizes, times).
    """
    for p in paper.published:
        if (p.table, p.row, p.metric) == (table, group, metric) and p.data in data:
            return published_text(p)
    return ""


def published_text(p) -> str:
    text = format_number(p.value, p.std)
    return f"{text} ({p.standing})"


def _published_frame(paper: Paper, summary: pd.DataFrame) -> pd.DataFrame:
    """Every published figure, with ours where the same configuration ran on the same data."""
    lines = []
    for p in paper.published:
        ours = pd.DataFrame()
        if len(summary):
            same = (summary["group"] == p.row) & (summary["metric"] == p.metric)
            ours = summary[
                same & summary["data"].str.split().map(lambda names, d=p.data: d in {"none", *(n.split(":")[0] for n in names)})
            ]
        ran = len(ours) and ours.iloc[0]["seeds_done"] and pd.notna(ours.iloc[0]["mean"])
        mean = float(ours.iloc[0]["mean"]) if ran else None
        lines.append(
            {
                "table": p.table,
                "row": p.row,
                "metric": p.metric,
                "data": p.data,
                "value": p.value,
                "std": p.std,
                "runs": p.runs,
                "tag": p.tag,
                "standing": p.standing,
                "source": p.source,
                "ours": mean,
                "ours_std": float(ours.iloc[0]["std"]) if ran and pd.notna(ours.iloc[0]["std"]) else None,
                "difference": mean - p.value if mean is not None else None,
                "files": ours.iloc[0]["files"] if ran else "",
            }
        )
    return pd.DataFrame(lines)


def _verdicts(paper: Paper, profile: str, done: list[dict], absent: dict[str, str]) -> list[Verdict]:
    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in done:
        for metric, value in record["results"].items():
            values.setdefault((metric, record["group"]), {})[record["seed"]] = math.nan if value is None else value
    planned = {group: len(rows) for group, rows in _groups(paper, profile).items()}
    verdicts = []
    for claim in paper.claims:
        if claim.profile == profile:
            verdicts.append(decide(claim, values, planned))
    return verdicts


def make_table(paper: Paper, profile: str, results: Path = Path("results")) -> dict:
    """Writes results/<slug>/<profile>/: table.csv, table.md, published.csv, verdicts.csv, summary.json and figures/."""
    if not paper.profile(profile):
        known = ", ".join(dict.fromkeys(r.profile for r in paper.runs))
        raise ValueError(f"{paper.folder / 'runs.csv'}: expected runs of profile '{profile}', found none; its profiles: {known}")
    folder = Path(results) / paper.slug / profile
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for old in [*figures.glob("*.svg"), *figures.glob("*.png")]:
        old.unlink()
    done, absent = collect(paper, profile, folder)
    summary = _summary(paper, profile, done, absent)
    published = _published_frame(paper, summary)
    verdicts = _verdicts(paper, profile, done, absent)
    drawn = [name for draw in (draw_curves, draw_sizes, draw_finals) for name in draw(paper, done, figures)]
    summary.to_csv(folder / "table.csv", index=False)
    published.to_csv(folder / "published.csv", index=False)
    pd.DataFrame([v.as_dict() for v in verdicts], columns=list(Verdict.__dataclass_fields__)).to_csv(
        folder / "verdicts.csv", index=False
    )
    (folder / "table.md").write_text(
        _markdown(paper, profile, summary, published, verdicts, done, absent, drawn), encoding="utf-8"
    )
    content = {
        "paper": paper.slug,
        "title": paper.title,
        "text": paper.summary,
        "profile": profile,
        "metrics": paper.metrics,
        "planned": len(paper.profile(profile)),
        "done": len(done),
        "absent": absent,
        "rows": json.loads(summary.to_json(orient="records")),
        "published": json.loads(published.to_json(orient="records")) if len(published) else [],
        "published_tables": list(dict.fromkeys(p.table for p in paper.published)),
        "verdicts": [v.as_dict() for v in verdicts],
        "figures": drawn,
        "counts": sorted(counts(done)),
        "data_about": _about(done),
        "exchanges": exchanges(done),
        "knobs": {group: dict(rows[0].knobs) for group, rows in _groups(paper, profile).items()},
        "runs": [
            {k: r[k] for k in ("run", "group", "seed", "results", "file", "provenance", "data_sha256", "knobs_not_read")}
            for r in done
        ],
    }
    write_json(folder / "summary.json", content)
    return content


def counts(done: list[dict]) -> set[str]:
    """Metrics that are whole numbers in every run."""
    found: dict[str, list] = {}
    for record in done:
        for metric, value in record["results"].items():
            found.setdefault(metric, []).append(value)
    return {m for m, values in found.items() if all(v is not None and v == int(v) for v in values)}


EXCHANGES = ["run", "ranks", "ms a step", *("compute", "wait", "pack", "send", "unpack"), "bytes a step", "advice"]


def exchanges(done: list[dict]) -> list[list[str]]:
    """For each group of runs on several ranks, the means of what the first rank's meter says; times of virtual ranks are virtual."""
    groups: dict[str, list[dict]] = {}
    for record in done:
        if record.get("exchanges"):
            groups.setdefault(record["group"], []).append(record["exchanges"])
    rows = []
    for group, told in groups.items():
        ms = {phase: sum(t["ms"][phase] for t in told) / len(told) for phase in told[0]["ms"]}
        advice = next((t["advice"] for t in told if t["advice"]), "")
        sent = sum(t["bytes"] for t in told) / len(told)
        times = [format_number(t) for t in (sum(ms.values()), *ms.values())]
        rows.append([group, f"{told[0]['ranks']} {told[0]['kind']}", *times, format_number(sent, whole=True), advice])
    return rows


def _about(done: list[dict]) -> dict[str, str]:
    """What each data set is and what made it; generated data says so in its title."""
    return {name: text for record in done for name, text in record["data_about"].items()}


def _cell(line, whole: set[str]) -> str:
    if line["status"] == NOT_RUN:
        return NOT_RUN
    if line["status"] == NO_SUCH:
        return ""
    if "digest" in line["label"]:
        return "in the records"
    if line["diverged"]:
        return f"diverged ({line['diverged']} of {line['seeds_done']})"
    text = format_number(line["mean"], line["std"] if pd.notna(line["std"]) else None, line["metric"] in whole)
    return text if line["status"] == "done" else f"{text} ({line['seeds_done']} of {line['seeds_planned']} seeds)"


def _markdown(paper, profile, summary, published, verdicts, done, absent, drawn) -> str:
    parts = [f"# {paper.title}: {profile}", ""]
    parts += [f"Mean ± standard deviation over seeds. {len(done)} of {len(paper.profile(profile))} runs are done.", ""]
    tables = [t for t in dict.fromkeys(p.table for p in paper.published) if len(summary) and (summary[t] != "").any()]
    parts.append(
        _pipe(["run", "data", "seeds", *paper.metrics.values(), *tables, "from"], _markdown_rows(summary, tables, counts(done)))
    )
    parts += ["", *[f"`{name}`: {text}." for name, text in _about(done).items()]]
    if absent:
        parts += ["", f"Not run: {'; '.join(f'{run} ({why})' for run, why in absent.items())}."]
    if told := exchanges(done):
        parts += ["", "## Where the time of a step goes", ""]
        parts.append(_pipe(EXCHANGES, told))
    if verdicts:
        parts += ["", "## Claims", ""]
        rows = [[v.claim, v.text, f"**{v.verdict}**", f"`{v.condition}`", _evidence(v)] for v in verdicts]
        parts.append(_pipe(["claim", "what must hold", "verdict", "condition", "evidence"], rows))
    if len(published):
        parts += ["", "## Published figures", ""]
        rows = []
        for p, line in zip(paper.published, published.to_dict("records"), strict=True):
            ours = (
                NOT_RUN
                if pd.isna(line["ours"])
                else format_number(
                    line["ours"], None if pd.isna(line["ours_std"]) else line["ours_std"], p.metric in counts(done)
                )
            )
            rows.append(
                [p.table, p.row, paper.metrics[p.metric], p.data, format_number(p.value, p.std), p.standing, ours, p.source]
            )
        parts.append(_pipe(["table", "row", "number", "data", "published", "standing", "ours in this profile", "source"], rows))
    if drawn:
        parts += [""] + [f"![{name}](figures/{name}.png)" for name in drawn]
    commits = sorted({f"{commit_text(r['provenance'])}" for r in done})
    if commits:
        parts += [
            "",
            f"Made by commit {', '.join(commits)}; each record in `runs/` holds machine, versions, data hash and times.",
        ]
    return "\n".join(parts) + "\n"


def _markdown_rows(summary: pd.DataFrame, tables: list[str], whole: set[str]) -> list[list[str]]:
    rows = []
    for group, lines in summary.groupby("group", sort=False):
        first = lines.iloc[0]
        cells = [_cell(line, whole) for _, line in lines.iterrows()]
        theirs = ["; ".join(dict.fromkeys(c for c in lines[t] if c)) for t in tables]
        files = first["files"].split()
        links = " ".join(f"[{Path(f).stem}]({f})" for f in files) or first["reason"]
        rows.append([str(group), first["data"], f"{first['seeds_done']} of {first['seeds_planned']}", *cells, *theirs, links])
    return rows


def _evidence(v: Verdict) -> str:
    if v.estimate is None:
        return v.reason
    parts = [f"excess {format_number(v.estimate)}"]
    if v.low is not None and v.high is not None and v.statistic is not None:
        parts.append(f"{v.confidence:.0%} one-sided bounds {format_number(v.low)} and {format_number(v.high)}")
        parts.append(f"{v.test} t = {v.statistic:.2f}, df = {v.freedom:.1f}, p = {v.p:.2g}")
    parts.append(v.reason)
    return "; ".join(p for p in parts if p)


def _pipe(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; pandas' own needs one more package for it."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines)
