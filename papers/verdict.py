"""The verdict on a claim: holds, fails or undecided at the stated confidence; not run where its data is not there."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from scipy import stats

from cogkit.papers.sheets import Claim

__all__ = ["Verdict", "decide"]


@dataclass(frozen=True)
class Verdict:
    """A claim, what the runs say about it, and the numbers that a reader needs to check it."""

    claim: str
    text: str
    condition: str
    verdict: str  # holds | fails | undecided | not run
    reason: str
    estimate: float | None = None  # left side minus right side, turned so that the claim is "above 0"
    low: float | None = None  # one-sided confidence bounds of the estimate, each at the claim's confidence
    high: float | None = None
    statistic: float | None = None
    freedom: float | None = None
    p: float | None = None  # one-sided, against "the claim is just false"
    test: str = ""
    confidence: float = 0.0
    seeds: str = ""

    def as_dict(self) -> dict:
        return asdict(self)


def decide(claim: Claim, values: Mapping[tuple[str, str], Mapping[int, float]], planned: Mapping[str, int]) -> Verdict:
    """Verdict on `claim` from `values[metric, group][seed]`; `planned[group]` is the number of seeds that its sheet wants.

    welch: Welch's t for a contrast of means (Satterthwaite's degrees of freedom); paired: Student's t over seeds that all
    groups share; exact: the means as they are, for what has no noise (sizes, counts, digests). One-sided, both ways: the claim holds
    when its lower bound is above the threshold, fails when its upper bound is below, and else the seeds do not decide it.
    """
    made = {
        "claim": claim.name,
        "text": claim.text,
        "condition": claim.condition,
        "test": claim.test,
        "confidence": claim.confidence,
    }
    samples = [(c, metric, group, dict(values.get((metric, group), {}))) for c, metric, group in claim.terms]
    lacking = [
        f"{group} has {len(s)} of {planned.get(group, 0)} runs" for _, _, group, s in samples if len(s) < planned.get(group, 1)
    ]
    if lacking:
        return Verdict(**made, verdict="not run", reason="; ".join(dict.fromkeys(lacking)))
    seeds = ", ".join(f"{group}: {len(s)}" for _, _, group, s in samples)
    bad = [f"{metric}({group})" for _, metric, group, s in samples if not all(map(math.isfinite, s.values()))]
    if bad:
        return Verdict(**made, verdict="undecided", reason=f"{', '.join(bad)} is not finite", seeds=seeds)
    estimate, error, freedom, reason = _MEASURES[claim.test](samples)
    estimate -= claim.threshold
    made |= {"estimate": estimate, "seeds": seeds}
    if reason:
        return Verdict(**made, verdict="undecided", reason=reason)
    if error == 0.0:  # no noise at all: an exact test, or seeds that agree to the last bit
        if "=" in claim.condition and estimate == 0.0:
            return Verdict(**made, verdict="holds", reason="equal", low=0.0, high=0.0)
        verdict = "holds" if estimate > 0 and "==" not in claim.condition else "fails"
        return Verdict(
            **made, verdict=verdict, reason="no spread between seeds" * (claim.test != "exact"), low=estimate, high=estimate
        )
    t = estimate / error
    reach = float(stats.t.ppf(claim.confidence, freedom)) * error
    low, high = estimate - reach, estimate + reach
    verdict = "holds" if low > 0 else "fails" if high < 0 else "undecided"
    said = {"holds": "lower bound above", "fails": "upper bound below", "undecided": "bounds on both sides of"}[verdict]
    return Verdict(
        **made,
        verdict=verdict,
        reason=f"{said} what was claimed",
        low=low,
        high=high,
        statistic=t,
        freedom=freedom,
        p=float(stats.t.sf(t, freedom)),
    )


def _spread(x: list[float]) -> tuple[float, float]:
    """Mean and unbiased variance."""
    mean = math.fsum(x) / len(x)
    return mean, math.fsum((v - mean) ** 2 for v in x) / (len(x) - 1) if len(x) > 1 else 0.0


def _welch(samples: list) -> tuple[float, float, float, str]:
    estimate, variance, below = 0.0, 0.0, 0.0
    for c, _, group, by_seed in samples:
        n = len(by_seed)
        mean, s2 = _spread(list(by_seed.values()))
        estimate += c * mean
        if n < 2:
            return estimate, 0.0, 0.0, f"{group} has one seed: no spread to test with"
        variance += c * c * s2 / n
        below += (c * c * s2 / n) ** 2 / (n - 1)
    return estimate, math.sqrt(variance), variance**2 / below if below else 0.0, ""


def _paired(samples: list) -> tuple[float, float, float, str]:
    shared = sorted(set.intersection(*(set(by_seed) for *_, by_seed in samples)))
    if len(shared) < 2:
        estimate = math.fsum(c * _spread(list(by_seed.values()))[0] for c, _, _, by_seed in samples)
        return estimate, 0.0, 0.0, f"{len(shared)} seeds in common: no spread to test with"
    mean, s2 = _spread([math.fsum(c * by_seed[seed] for c, _, _, by_seed in samples) for seed in shared])
    return mean, math.sqrt(s2 / len(shared)), len(shared) - 1, ""


def _exact(samples: list) -> tuple[float, float, float, str]:
    return math.fsum(c * _spread(list(by_seed.values()))[0] for c, _, _, by_seed in samples), 0.0, 0.0, ""


_MEASURES = {"welch": _welch, "paired": _paired, "exact": _exact}
