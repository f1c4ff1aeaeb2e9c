"""Figures that every paper gets: learning curves with a band over seeds, and final numbers with every seed shown."""

import math
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from cogkit.papers.sheets import Paper  # noqa: E402

__all__ = ["draw_curves", "draw_finals", "draw_sizes"]

HUES = (
    "#d9480f",
    "#1c7ed6",
    "#2b8a3e",
    "#9c36b5",
    "#b08900",
    "#0c8599",
    "#c2255c",
    "#5c677d",
)  # legible on white and on near-black
X_NAMES = ("epoch", "ranks", "samples")  # what a point of a curve may stand over; the first that all points have
CLOCK = "seconds"  # of a point, in the time of virtual ranks: a second figure of the curves stands over it
MANY = 8  # groups, above which the legend stands beside the panels
DASHES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (1, 1)))
INK = "#010203"  # stands for the page's own text colour: replaced by currentColor in the SVG
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "grid.color": "#888888",
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def parts_of(group: str) -> list[str]:
    """Family and size: `plain-20` -> plain, 20."""
    return group.rsplit("-", 1) if re.fullmatch(r".+-\d+", group) else [group, ""]


def look_of(groups: list[str]) -> dict[str, tuple[str, object]]:
    """Colour and dash for each group: `plain-20` and `plain-56` share a colour, `resnet-20` and `plain-20` a dash."""
    parts = {g: parts_of(g) for g in groups}
    families = list(dict.fromkeys(p[0] for p in parts.values()))
    sizes = sorted({p[1] for p in parts.values()}, key=lambda s: int(s or 0), reverse=True)
    return {g: (HUES[families.index(f) % len(HUES)], DASHES[sizes.index(s) % len(DASHES)]) for g, (f, s) in parts.items()}


def _groups(done: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for record in done:
        groups.setdefault(record["group"], []).append(record)
    return groups


def draw_curves(paper: Paper, done: list[dict], folder: Path) -> list[str]:
    """One panel for each number that the learning curves hold; where virtual ranks kept time, the same over their clock."""
    groups = _groups([r for r in done if r["curve"]])
    names = list(dict.fromkeys(k for rs in groups.values() for r in rs for p in r["curve"] for k in p))
    names = [n for n in names if n not in (*X_NAMES, CLOCK)]
    names = [n for n in paper.metrics if n in names] or names
    if not names:
        return []
    drawn = [_draw_curves(paper, groups, names, folder / "curves")]
    timed = {g: rs for g, rs in groups.items() if all(any(CLOCK in p for p in r["curve"]) for r in rs)}
    if timed:
        drawn.append(_draw_curves(paper, timed, names, folder / "curves_over_time", CLOCK))
    return drawn


def _draw_curves(paper: Paper, groups: dict[str, list[dict]], names: list[str], path: Path, over: str = "") -> str:
    """Mean over seeds and a band of one standard deviation; over: what the points stand over, '': the first of X_NAMES they all have."""
    looks = look_of(list(groups))
    with plt.rc_context(STYLE):
        size = (4.4 * len(names) + 1.8 * (len(groups) > MANY), max(3.5, 0.23 * len(groups) * (len(groups) > MANY)))
        figure, panels = plt.subplots(1, len(names), figsize=size, squeeze=False, layout="constrained")
        for panel, name in zip(panels[0], names, strict=True):
            points = [p for rs in groups.values() for r in rs for p in r["curve"] if name in p]
            x_name = next(x for x in X_NAMES if all(x in p for p in points))
            for group, records in groups.items():
                if not any(name in p for r in records for p in r["curve"]):
                    continue
                x, mean, std = _band(records, x_name, name, over)
                colour, dash = looks[group]
                panel.plot(x, mean, color=colour, linestyle=dash, linewidth=1.7, label=group)
                panel.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
                if x_name == "ranks":
                    _mark_published(paper, panel, group, name, records, x, mean)
            panel.set_title(paper.metrics.get(name, name.replace("_", " ")))
            panel.set_xlabel(over and paper.metrics.get(over, over) or x_name)
            if over:
                panel.set_xscale("log")
            elif x_name == "ranks":
                ranks = sorted({p["ranks"] for p in points})
                panel.set_xscale("log", base=2)
                panel.set_xticks(ranks, map(str, ranks))
                panel.minorticks_off()
            else:
                panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        shown = {label: line for panel in panels[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        if len(groups) > MANY:
            figure.legend(list(shown.values()), list(shown), loc="outside right center")
        else:
            ncols = min(4, 2 * len(names), len(groups))
            figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=ncols)
        _save(figure, path)
    return path.name


def _mark_published(paper: Paper, panel, group: str, name: str, records: list[dict], x: np.ndarray, mean: np.ndarray) -> None:
    """Published figures of a group, where its curve takes the number of the table."""
    final = [r["results"].get(name) for r in records]
    at = [] if None in final else x[np.isclose(mean, np.mean(final))][:1]
    for p in paper.published:
        if (p.row, p.metric) == (group, name) and p.data == "none" and p.verified and len(at):
            panel.plot(at, [p.value], marker="D", color=INK, markersize=6, fillstyle="none", linestyle="none", label="published")


def _band(records: list[dict], x_name: str, name: str, over: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that all seeds share, their mean and standard deviation; over: what stands for x, in the mean of the seeds."""
    over = over or x_name
    lines = [{p[x_name]: (p[over], p[name]) for p in r["curve"] if over in p and p.get(name) is not None} for r in records]
    x = sorted(set.intersection(*(set(line) for line in lines)))
    values = np.array([[line[at] for at in x] for line in lines], dtype=float).reshape(len(lines), len(x), 2)
    mean, std = values.mean(axis=0), values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros((len(x), 2))
    return mean[:, 0], mean[:, 1], std[:, 1]


def _varying(paper: Paper, groups: dict[str, list[dict]]) -> list[str]:
    """Metrics that are amounts and differ between seeds."""
    amounts = [m for m, label in paper.metrics.items() if "digest" not in label]  # a digest is compared, not measured
    return [m for m in amounts if any(_noisy(rs, m) for rs in groups.values())]


def draw_sizes(paper: Paper, done: list[dict], folder: Path) -> list[str]:
    """Final numbers over the size in a group's name, where a family has three sizes: `classic-4`, `classic-16`, `classic-64`."""
    groups = {g: rs for g, rs in _groups(done).items() if parts_of(g)[1]}
    families: dict[str, list[str]] = {}
    for group in groups:
        families.setdefault(parts_of(group)[0], []).append(group)
    names = _varying(paper, groups)
    if not names or max(map(len, families.values()), default=0) < 3:
        return []
    looks = look_of(list(groups))
    sizes = sorted({int(parts_of(g)[1]) for g in groups})
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(names), figsize=(4.4 * len(names), 3.5), squeeze=False, layout="constrained")
        for panel, name in zip(panels[0], names, strict=True):
            for k, (family, members) in enumerate(families.items()):
                values = {int(parts_of(g)[1]): [r["results"].get(name) for r in groups[g]] for g in members}
                values = {size: v for size, v in sorted(values.items()) if None not in v}
                if not values:
                    continue
                x = np.array(list(values)) * 1.02 ** (k - len(families) / 2)  # beside each other
                std = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values.values()]
                style = {"color": looks[members[0]][0], "marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.4}
                panel.errorbar(x, [np.mean(v) for v in values.values()], yerr=std, label=family, **style)
            panel.set_xscale("log")
            panel.set_xticks(sizes, map(str, sizes))
            panel.minorticks_off()
            panel.set_xlabel("number in the group's name")
            if name == CLOCK:
                panel.set_yscale("log")
            panel.set_title(paper.metrics[name])
        shown = {label: line for panel in panels[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=min(3 * len(names), len(families)))
        _save(figure, folder / "sizes")
    return ["sizes"]


def draw_finals(paper: Paper, done: list[dict], folder: Path) -> list[str]:
    """Final numbers: a mark for every seed, mean and standard deviation beside, published figures of the same data as lines."""
    groups = _groups(done)
    names = _varying(paper, groups)
    if not names:
        return []
    looks = look_of(list(groups))
    order = list(groups)[::-1]
    with plt.rc_context(STYLE):
        size = (4.4 * len(names), 0.9 + 0.42 * len(order))
        figure, panels = plt.subplots(1, len(names), figsize=size, squeeze=False, sharey=True, layout="constrained")
        for panel, name in zip(panels[0], names, strict=True):
            for y, group in enumerate(order):
                values = [v for r in groups[group] if (v := r["results"].get(name)) is not None]
                if not values:
                    continue
                colour = looks[group][0]
                panel.plot(values, [y] * len(values), "o", color=colour, alpha=0.45, markersize=6, markeredgewidth=0)
                std = np.std(values, ddof=1) if len(values) > 1 else 0.0
                panel.errorbar(np.mean(values), y, xerr=std, fmt="|", color=colour, markersize=15, capsize=3)
                for p in paper.published:
                    data = {d.split(":")[0] for d in groups[group][0]["data"]} | {"none"}
                    if (p.row, p.metric) == (group, name) and p.data in data and p.verified:
                        panel.plot([p.value], [y], marker="D", color=INK, markersize=6, fillstyle="none", linestyle="none")
            panel.set_yticks(range(len(order)), order)
            panel.set_ylim(-0.6, len(order) - 0.4)
            panel.set_title(paper.metrics[name])
        _save(figure, folder / "finals")
    return ["finals"]


def _noisy(records: list[dict], metric: str) -> bool:
    values = [r["results"][metric] for r in records if metric in r["results"]]
    return len({v for v in values if v is not None}) > 1 or (
        len(values) == 1 and values[0] is not None and math.isfinite(values[0])
    )


def _save(figure, path: Path) -> None:
    """path.svg, in the colour of the text around it, and path.png on white."""
    with plt.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    text = path.with_suffix(".svg").read_text(encoding="utf-8").replace(INK, "currentColor")
    path.with_suffix(".svg").write_text(text, encoding="utf-8")
    figure.savefig(path.with_suffix(".png"), dpi=130, facecolor="white")
    plt.close(figure)
