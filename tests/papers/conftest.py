"""A paper that needs neither engine nor data: a least-squares fit in a few lines, slow enough to be killed in the middle."""

from pathlib import Path

import pytest

FILES = {
    "README.md": "# A fit that learns\n\nMore steps fit better; the sign of noise does not matter.\n\n## Departures\n\nNone.\n",
    "published.csv": "table,row,metric,data,value,std,runs,tag,source\n"
    "Fake 2016 table 1,long-64,error,none,0.5,0.1,5,V,made up\n"
    "Fake 2016 table 1,long-64,size,none,3,,,M,made up\n",
    "claims.csv": "claim,profile,text,holds_if,test,confidence\n"
    "longer,quick,More steps fit better,error(short-8) - error(long-64) > 0,paired,95 %\n"
    "worse,quick,More steps fit worse,error(short-8) < error(long-64),welch,95 %\n"
    "same,quick,Both are of one size,size(short-8) <= size(long-64),exact,95 %\n"
    "absent,desk,Never run,error(other) < 1,welch,95 %\n",
    "model.py": '"""Nothing."""\n',
    "train.py": '''"""Least squares by gradient descent, with noise of its own seed."""
import json
import time

import numpy as np

METRICS = {"error": "error, %", "size": "parameters"}


def run(row, data, out):
    rng = np.random.default_rng(row.seed)
    x = rng.normal(size=(64, row.width))
    y = x @ rng.normal(size=row.width) + 0.01 * rng.normal(size=64)
    w, step = np.zeros(row.width), 0
    out.expect(64 * row.steps)
    if (found := out.resume()) is not None:
        folder, state = found
        w, step = np.array(json.loads((folder / "w.json").read_text())), state["step"]
    while step < row.steps:
        w -= 0.002 * x.T @ (x @ w - y)
        step += 1
        time.sleep(row.pause)
        error = float(100 * np.mean((x @ w - y) ** 2) / np.mean(y**2))
        out.advance(64, error=error)
        if step % 4 == 0:
            out.point(epoch=step // 4, error=error)
            if out.due():
                out.save(lambda folder: (folder / "w.json").write_text(json.dumps(w.tolist())), step=step)
    return {"error": error, "size": row.width}
''',
    "runs.csv": "profile,run,group,data,seed,width,steps,pause\n"
    + "".join(f"quick,short-s{s},short-8,none,{s},3,8,0.001\n" for s in (1, 2, 3))
    + "".join(f"quick,long-s{s},long-64,none,{s},3,64,0.001\n" for s in (1, 2, 3))
    + "desk,other-s1,other,none,1,3,8,0.001\n",
}


@pytest.fixture(scope="session")
def write_paper():
    """write_paper(folder, **changed): the fake paper; `changed` replaces texts, with _ for the dot: runs_csv="..."."""

    def write(folder: Path, **changed: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(changed.get(name.replace(".", "_"), text), encoding="utf-8")
        return folder

    return write
