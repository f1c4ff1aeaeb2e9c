"""Records what CNTK 2.7 computes for the cases and stories over sequences: `cntk27 make_sequence_goldens.py [word ...]` (Python 3.6).

Writes seq_<family>.npz beside itself: `values`, all arrays one after the other in float64, and `index`, JSON that says where each lies.
A case runs in a process of its own, twice: CNTK crashes on some, and a record counts when it comes twice. With words only the cases
whose `family:name` holds one of them are run again.
"""

# ruff: noqa: UP022, UP031, B905  (Python 3.6 reads this file too)

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import numpy as np  # noqa: E402
from cases.sequence_training import STORIES  # noqa: E402
from cases.sequences import CASES, check_sum, record, recorded  # noqa: E402

SECONDS = 120  # a case that takes longer has hung


def one(name, dtype):
    """Runs one case and writes it to standard output, an .npz."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # CNTK prints
    import cntk as C

    if name in STORIES:
        first, again = (STORIES[name](C, dtype) for _ in range(2))
    else:
        case = [c for c in CASES if c.name == name][0]
        first, again = (record(C, case, dtype, oracle=True) for _ in range(2))
    close = 1e-12 if dtype == "f8" else 1e-6
    for key in first:
        np.testing.assert_allclose(again[key], first[key], rtol=close, atol=close, err_msg=key)
    buffer = io.BytesIO()
    np.savez(buffer, **{k.replace("/", ":"): v for k, v in first.items()})
    out.write(buffer.getvalue())
    out.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down


def attempt(name, dtype):
    """What one case gives, or the last thing that its process said."""
    command = [sys.executable, "-W", "ignore", os.path.abspath(__file__), "--case", name, dtype]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "took more than %d s" % SECONDS
    if done.returncode:
        lines = [w for w in done.stderr.decode("utf-8", "replace").split("\n") if w.strip() and not w.startswith("[0x")]
        told = [w for w in lines if "throw exception" in w] or lines
        return "rc %d: %s" % (done.returncode, " | ".join(told[-1:])[:300])
    with np.load(io.BytesIO(done.stdout)) as z:
        return {k.replace(":", "/"): z[k] for k in z.files}


def run(name):
    """A case in float64, or where CNTK cannot (some of its layers make float32 scalars) in float32."""
    found = attempt(name, "f8")
    return ("f8", found) if isinstance(found, dict) else ("f4", attempt(name, "f4"))


def write(family, cases):
    """cases: {name: (entry of the index, arrays)}."""
    import cntk as C
    from make_goldens import save

    about = dict(cntk=C.__version__, numpy=np.__version__, python=sys.version.split()[0])
    index, values, at = {}, [], 0
    for name, (entry, found) in sorted(cases.items()):
        entry["of"] = {}
        for k in sorted(found):
            entry["of"][k] = [at] + list(found[k].shape)
            values.append(np.asarray(found[k], np.float64).ravel())
            at += found[k].size
        index[name] = entry
    text = json.dumps(index, sort_keys=True).encode()
    values = np.concatenate(values)
    save(
        os.path.join(HERE, "seq_%s.npz" % family),
        dict(about=np.array(json.dumps(about)), index=np.frombuffer(text, np.uint8), values=values),
    )
    print("%-10s %4d cases %7d numbers" % (family, len(cases), at))


def main(words):
    sys.path.insert(0, HERE)
    sums = {c.name: {m: check_sum(c, m) for m in c.only} for c in CASES}
    known = {c.name: c.family for c in CASES}
    known.update({name: "training" for name in STORIES})
    chosen = [n for n in known if not words or any(w in known[n] + ":" + n for w in words)]
    families, failed = {}, 0
    for family in set(known[n] for n in chosen):
        path = os.path.join(HERE, "seq_%s.npz" % family)
        kept = recorded(path) if os.path.exists(path) else {}
        families[family] = {n: v for n, v in kept.items() if known.get(n) == family and n not in chosen}
    with ThreadPoolExecutor(2) as pool:
        for name, (dtype, found) in zip(chosen, pool.map(run, chosen)):
            if isinstance(found, str):
                failed += 1
                print("FAILED %s: %s" % (name, found))
            else:
                families[known[name]][name] = dict(type=dtype, asked=sums.get(name)), found
    for family, cases in sorted(families.items()):
        write(family, cases)
    print("%d cases without a record" % failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        one(sys.argv[2], sys.argv[3])
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
