"""The papers' contract: a good folder reads, every planted fault is named by file, line and column."""

import pytest

from cogkit.papers.sheets import FILES, SheetError, find_papers, fingerprint, parse_condition, read_paper

ROW = "profile,run,group,data,seed,width,steps,pause\n"
CLAIM = "claim,profile,text,holds_if,test,confidence\n"
PUBLISHED = "table,row,metric,data,value,std,runs,tag,source\n"
GOOD = "quick,a1,a,none,1,3,8,0.1\nquick,a2,a,none,2,3,8,0.1\nquick,a3,a,none,3,3,8,0.1\nquick,a4,a,none,4,3,8,0.1\n"

FAULTS = [  # sheet, its text, what the message must say
    ("runs_csv", ROW.replace("seed,", "") + "quick,a1,a,none,3,8,0.1\n", "runs.csv:1: expected the columns seed too"),
    (
        "runs_csv",
        ROW.replace("steps", "width") + "quick,a1,a,none,1,3,8,0.1\n",
        "runs.csv:1: column 'width': expected once, got 2 times",
    ),
    (
        "runs_csv",
        ROW.replace("steps", "my steps") + "quick,a1,a,none,1,3,8,0.1\n",
        "runs.csv:1: column 'my steps': expected a Python name",
    ),
    ("runs_csv", ROW, "runs.csv: expected at least one run, found none"),
    ("runs_csv", "", "runs.csv:1: expected the columns profile, run, group, data, seed too, got nothing"),
    ("runs_csv", ROW + "quick,a1,a,none,1,3,8\n", "runs.csv:2: expected 8 cells, got 7; put a cell with a comma in quotes"),
    (
        "runs_csv",
        ROW + "fast,a1,a,none,1,3,8,0.1\n",
        "runs.csv:2: column 'profile': expected one of smoke, quick, desk, paper, got 'fast'",
    ),
    ("runs_csv", ROW + "quick,A 1,a,none,1,3,8,0.1\n", "runs.csv:2: column 'run': expected a name of a-z 0-9 _ . -, got 'A 1'"),
    ("runs_csv", ROW + "quick,../a,a,none,1,3,8,0.1\n", "runs.csv:2: column 'run': expected a name"),
    ("runs_csv", ROW + "quick,a1,,none,1,3,8,0.1\n", "runs.csv:2: column 'group': expected a name"),
    ("runs_csv", ROW + "quick,a1,a,none,1.5,3,8,0.1\n", "runs.csv:2: column 'seed': expected a whole number from 0, got '1.5'"),
    ("runs_csv", ROW + "quick,a1,a,none,-1,3,8,0.1\n", "runs.csv:2: column 'seed': expected a whole number from 0, got '-1'"),
    ("runs_csv", ROW + "quick,a1,a,cifar10,1,3,8,0.1\n", "runs.csv:2: column 'data': expected dataset:size"),
    ("runs_csv", ROW + "quick,a1,a,,1,3,8,0.1\n", "runs.csv:2: column 'data': expected dataset:size"),
    (
        "runs_csv",
        ROW + "quick,a1,a,none,1,3,,0.1\n",
        "runs.csv:2: column 'steps': expected a value, got ''; a row states every knob",
    ),
    (
        "runs_csv",
        ROW + GOOD + "quick,a5,a,none,5,3,8x,0.1\n",
        "runs.csv:6: column 'steps': expected a whole number as in the rest",
    ),
    (
        "runs_csv",
        ROW + GOOD + "quick,a1,b,none,1,3,9,0.1\n",
        "runs.csv:6: column 'run': expected a name used once in a profile, got 'a1'; line 2",
    ),
    (
        "runs_csv",
        ROW + GOOD + "quick,a5,a,none,1,3,8,0.1\n",
        "runs.csv:6: column 'seed': expected each seed once in a group, got '1'; line 2",
    ),
    (
        "runs_csv",
        ROW + GOOD + "quick,a5,a,none,5,3,9,0.1\n",
        "runs.csv:6: column 'steps': expected 8 as on line 2, got '9'; runs of group",
    ),
    (
        "claims_csv",
        CLAIM + "a,soon,text,error(a) < 1,welch,95 %\n",
        "claims.csv:2: column 'profile': expected one of smoke, quick",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,,error(long-64) < 1,welch,95 %\n",
        "claims.csv:2: column 'text': expected the claim in words",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long-64) < 1,guess,95 %\n",
        "claims.csv:2: column 'test': expected one of welch, paired, exact",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long-64) < 1,welch,0.95\n",
        "claims.csv:2: column 'confidence': expected a percentage",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long-64) < 1,welch,100 %\n",
        "claims.csv:2: column 'confidence': expected a percentage",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long-64),welch,95 %\n",
        "claims.csv:2: column 'holds_if': expected two sides around one of",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,size(long-64) == 3,welch,95 %\n",
        "claims.csv:2: column 'test': expected exact for a claim of equality, got 'welch'; noise makes no two means equal",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long-64) < x,welch,95 %\n",
        "claims.csv:2: column 'holds_if': expected metric(group) or a number at 'x'",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,eror(long-64) < 1,welch,95 %\n",
        "claims.csv:2: column 'holds_if': expected a metric of train.py (error, size)",
    ),
    (
        "claims_csv",
        CLAIM + "a,quick,text,error(long) < 1,welch,95 %\n",
        "claims.csv:2: column 'holds_if': expected a group of profile quick (long-64",
    ),
    (
        "claims_csv",
        CLAIM + 2 * "a,quick,text,error(long-64) < 1,welch,95 %\n",
        "claims.csv:3: column 'claim': expected a name used once",
    ),
    (
        "published_csv",
        PUBLISHED + "t,r,error,none,1,,,Q,s\n",
        "published.csv:2: column 'tag': expected one of V, S, D, M, M-low, got 'Q'",
    ),
    ("published_csv", PUBLISHED + "t,r,error,none,,,,V,s\n", "published.csv:2: column 'value': expected a number, got ''"),
    (
        "published_csv",
        PUBLISHED + "t,r,error,none,about 8,,,V,s\n",
        "published.csv:2: column 'value': expected a number, got 'about 8'",
    ),
    ("published_csv", PUBLISHED + "t,r,error,none,1,,,V,\n", "published.csv:2: column 'source': expected a text"),
    ("published_csv", PUBLISHED + "t,r,recall,none,1,,,V,s\n", "published.csv:2: column 'metric': expected a metric of train.py"),
    (
        "published_csv",
        PUBLISHED + 2 * "t,r,error,none,1,,,V,s\n",
        "published.csv:3: column 'row': expected a figure once in a table",
    ),
    ("train_py", "def run(row, data, out):\n    return {}\n", "train.py: expected METRICS = {name: label with unit}"),
    ("train_py", "METRICS = dict(error='e')\n\ndef run(row, data, out): ...\n", "train.py:1: METRICS: expected a literal"),
    ("train_py", "METRICS = {'error': 'e', 'size': 's'}\n", "train.py: expected a function run(row, data, out), found none"),
    ("train_py", "def run(:\n", "train.py:1: invalid syntax"),
]


@pytest.mark.parametrize(("sheet", "text", "message"), FAULTS, ids=lambda x: x[:40] if isinstance(x, str) else "")
def test_a_planted_fault_is_named(write_paper, tmp_path, sheet, text, message):
    folder = write_paper(tmp_path / "fake", **{sheet: text})
    with pytest.raises(SheetError) as caught:
        read_paper(folder)
    assert message in str(caught.value)
    assert all(str(folder) in fault for fault in caught.value.faults)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(write_paper, tmp_path, name):
    folder = write_paper(tmp_path / "fake")
    (folder / name).unlink()
    with pytest.raises(SheetError, match=f"expected {name} "):
        read_paper(folder)


def test_all_faults_come_at_once(write_paper, tmp_path):
    folder = write_paper(
        tmp_path / "fake", claims_csv=CLAIM + "a,soon,,x,guess,1\n", published_csv=PUBLISHED + "t,r,error,none,,,,Q,s\n"
    )
    with pytest.raises(SheetError) as caught:
        read_paper(folder)
    assert len(caught.value.faults) == 7


def test_a_good_folder(write_paper, tmp_path):
    paper = read_paper(write_paper(tmp_path / "fake"))
    assert (paper.slug, paper.title, paper.summary) == (
        "fake",
        "A fit that learns",
        "More steps fit better; the sign of noise does not matter.",
    )
    assert [r.name for r in paper.profile("quick")][:2] == ["short-s1", "short-s2"]
    assert paper.find("quick", "long-s2").knobs == {"width": 3, "steps": 64, "pause": 0.001}
    assert [p.standing for p in paper.published] == ["verified", "unverified"]
    assert find_papers(tmp_path) == ["fake"]
    with pytest.raises(ValueError, match="expected a run of profile 'quick', got 'nobody'; its runs: short-s1"):
        paper.find("quick", "nobody")


def test_column_kinds(write_paper, tmp_path):
    text = ROW.replace("pause", "on") + "quick,a1,a,x:1 y:2,1,3.0,s8,true\nquick,a2,b,x:60,2,1,s9,false\n"
    runs = read_paper(write_paper(tmp_path / "fake", runs_csv=text, claims_csv=CLAIM)).runs
    assert [r.knobs for r in runs] == [{"width": 3.0, "steps": "s8", "on": True}, {"width": 1.0, "steps": "s9", "on": False}]
    assert [r.data for r in runs] == [(("x", "1"), ("y", "2")), (("x", "60"),)]


@pytest.mark.parametrize(
    ("text", "terms", "threshold"),
    [
        ("error(a-1) > 2", {("error", "a-1"): 1}, 2),
        ("error(a-1) < 2", {("error", "a-1"): -1}, -2),
        ("e(a) - e(b) <= 0.5", {("e", "a"): -1, ("e", "b"): 1}, -0.5),
        ("e(a) > e(b) + 0.5", {("e", "a"): 1, ("e", "b"): -1}, 0.5),
        ("2 * e(a) - 0.5*e(b) - 1 >= e(a)", {("e", "a"): 1, ("e", "b"): -0.5}, 1),
        ("-e(a) + 3 > 0", {("e", "a"): -1}, -3),
        ("1 < e(a)", {("e", "a"): 1}, 1),
    ],
)
def test_conditions(text, terms, threshold):
    got, limit = parse_condition(text)
    assert {(m, g): c for c, m, g in got} == terms and limit == threshold


@pytest.mark.parametrize(
    "text", ["", "e(a)", "e(a) > > 1", "1 > 2", "e(a) e(b) > 1", "2 e(a) > 1", "e() > 1", "2 * 3 > e(a)", "e(a) > 1 +"]
)
def test_conditions_that_say_nothing(text):
    with pytest.raises(ValueError, match="expected"):
        parse_condition(text)


def test_the_fingerprint_sees_code_and_nothing_else(write_paper, tmp_path):
    folder = write_paper(tmp_path / "fake")
    first = fingerprint(folder)
    train = folder / "train.py"
    train.write_text(
        "# a comment\n"
        + train.read_text().replace('"""Least', '"""Greatest').replace("    w, step = np.zeros", "\n    w, step = np.zeros")
    )
    assert fingerprint(folder) == first
    train.write_text(train.read_text().replace("0.002", "0.003"))
    assert fingerprint(folder) != first
