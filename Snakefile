# data -> train -> table -> report. Papers are found, never named: snakemake --cores 2 [--config profile=desk]
#
# A run is trained anew when its row, its paper's code or the hash of its data changed; not for a touched file or an edited
# comment. Training keeps its checkpoints under build/papers, outside the declared outputs, so a killed run continues there.
import fcntl
import json
import os
import shlex
import sys
from pathlib import Path

from cogkit.papers.sheets import PROFILES, SheetError, find_papers, read_paper

profile = config.get("profile", "quick")
python = sys.executable
# From the root of the repository, `import layers` would load a second copy.
os.environ["PYTHONSAFEPATH"] = "1"
# Threads that wait by spinning take a busy machine's cores from the very thread that they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A killed Snakemake leaves its lock files behind and would then refuse to go on. This lock goes with its process: whoever gets it
# is alone here, and may clear them away.
Path(".snakemake").mkdir(exist_ok=True)
alone = open(".snakemake/alone", "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for stale in Path(".snakemake/locks").glob("*"):
        stale.unlink()
except BlockingIOError:
    pass

try:
    papers = {
        slug: read_paper(Path("papers") / slug) for slug in find_papers(Path("papers"))
    }
except SheetError as error:
    raise WorkflowError(str(error)) from None
active = [slug for slug, paper in papers.items() if paper.profile(profile)]
if not active:
    raise WorkflowError(
        f"expected a profile with runs, one of {', '.join(PROFILES)}; got '{profile}'"
    )
# quick promises to need nothing that is not there; in the others a missing data set is a finding, not an error
must = "--must" if profile in ("smoke", "quick") else ""


def row_of(wildcards):
    return papers[wildcards.paper].find(wildcards.profile, wildcards.run)


def given_option(path):
    return f"--given {shlex.quote(str(path))}" if path else ""


wildcard_constraints:
    paper="|".join(papers),
    profile="|".join(PROFILES),
    run="[a-z0-9][a-z0-9_.-]*",
    name="[a-z][a-z0-9_]*",
    size="[a-z0-9][a-z0-9_.,-]*",


rule report:
    input:
        expand("results/{paper}/{profile}/summary.json", paper=active, profile=profile),
    output:
        f"results/{profile}/report.html",
    shell:
        "{python} -m cogkit.papers report {profile}"


rule data:
    output:
        "build/data/{name}.{size}.json",
    params:
        # where the user has it: --config cifar10=FOLDER, or the variable that the recipe itself reads
        given=lambda w: given_option(
            config.get(w.name) or os.environ.get(f"COGKIT_DATA_{w.name.upper()}")
        ),
    shell:
        "{python} -m cogkit.papers data {wildcards.name} {wildcards.size} {params.given} --out {output} {must}"


rule train:
    input:
        stamps=lambda w: [
            f"build/data/{name}.{size}.json" for name, size in row_of(w).data
        ],
    output:
        "results/{paper}/{profile}/runs/{run}.json",
    log:
        "results/{paper}/{profile}/logs/{run}.log",
    # Small runs gain more from running side by side than from threads.
    threads: 1 if profile == "quick" else 4
    params:
        row=lambda w: json.dumps(row_of(w).as_dict(), sort_keys=True),
        code=lambda w: papers[w.paper].code,
    shell:
        "OMP_NUM_THREADS={threads} {python} -m cogkit.papers run {wildcards.paper} {wildcards.profile} {wildcards.run}"
        " --stamps {input.stamps} --out {output} --log {log}"


rule table:
    input:
        runs=lambda w: [
            f"results/{w.paper}/{w.profile}/runs/{run.name}.json"
            for run in papers[w.paper].profile(w.profile)
        ],
        claims="papers/{paper}/claims.csv",
        published="papers/{paper}/published.csv",
        readme="papers/{paper}/README.md",
    output:
        "results/{paper}/{profile}/summary.json",
        "results/{paper}/{profile}/table.csv",
        "results/{paper}/{profile}/table.md",
        "results/{paper}/{profile}/published.csv",
        "results/{paper}/{profile}/verdicts.csv",
        directory("results/{paper}/{profile}/figures"),
    shell:
        "{python} -m cogkit.papers table {wildcards.paper} {wildcards.profile}"
