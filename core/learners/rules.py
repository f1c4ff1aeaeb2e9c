"""The update rules as graphs, one class a rule, and the functions that make learners of them.

Letters, the same in all rules: w the parameter, g the gradient summed over the minibatch (its mean in compatible mode), n the
samples of the minibatch, eta the learning rate for it, m the momentum, u = 1 - m where the gain is one and 1 elsewhere, v the
momentum of the variance. What changes with the minibatch comes as 0-d inputs `x`, computed in double precision by `numbers`.
Source: CNTK 2.7's formulas, checked against CNTK itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from cogkit import ops
from cogkit.learners.custom import UniversalLearner
from cogkit.learners.learner import GraphLearner, Learner, Options, Rule, schedule_for
from cogkit.learners.schedules import ScheduleLike, learning_parameter_schedule_per_sample, momentum_schedule_per_sample
from cogkit.variables import Parameter

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "default_unit_gain_value",
    "fsadagrad",
    "momentum_sgd",
    "nesterov",
    "rmsprop",
    "set_default_unit_gain_value",
    "sgd",
    "universal",
]

INF = float("inf")
LARGEST_STEP = 1e18
VARIANCE_MOMENTUM = 0.9999986111120757  # per sample: exp(-1 / 720000), two hours of speech at 100 frames a second
_unit_gain = True


def default_unit_gain_value() -> bool:
    """Whether momentum has unit gain where a learner is not told."""
    return _unit_gain


def set_default_unit_gain_value(value: bool) -> None:
    """Sets whether momentum has unit gain where a learner is not told."""
    global _unit_gain
    _unit_gain = bool(value)


class SGD(Rule):
    """w -= eta g"""

    of_rows = "sgd"

    def step(self, w, g, s, x):
        return w - x.eta * g, {}


class MomentumSGD(Rule):
    """s = m s + u eta g;  w -= s"""

    states = {"s": 0.0}
    momenta = ("momentum",)
    of_rows = "momentum"
    row_numbers = ("m", "u_eta")

    def numbers(self, n, eta, m):
        return {"m": m, "u_eta": self.gain(m) * eta}

    def step(self, w, g, s, x):
        moved = x.m * s.s + x.u_eta * g
        return w - moved, {"s": moved}


class Nesterov(MomentumSGD):
    """s = m s + u eta g;  w -= m s + u eta g"""

    of_rows = "nesterov"

    def step(self, w, g, s, x):
        push = x.u_eta * g
        moved = x.m * s.s + push
        return w - (x.m * moved + push), {"s": moved}


def _mean_over_tensor(a):
    return ops.reduce_mean(a) if a.shape else a


class AdaGrad(Rule):
    """s += g g;  a = 1 / sqrt(s + 1e-16);  w -= eta / mean(a) a g   (Duchi 2011)"""

    states = {"s": 0.0}
    of_rows = "adagrad"

    def __init__(self, need_ave_multiplier: bool):
        super().__init__()
        self.average = bool(need_ave_multiplier)

    def step(self, w, g, s, x):
        squares = s.s + g * g
        a = 1.0 / ops.sqrt(squares + 1e-16)
        eta = x.eta / _mean_over_tensor(a) if self.average else x.eta
        return w - eta * (a * g), {"s": squares}


class AdaDelta(Rule):
    """s = rho s + (1-rho) g g;  d = -sqrt((t+eps) / (s+eps)) g;  t = rho t + (1-rho) d d;  w += eta d   (Zeiler 2012)"""

    states = {"s": 0.0, "t": 0.0}
    of_rows = "adadelta"

    def __init__(self, rho: float, epsilon: float):
        super().__init__()
        self.rho, self.epsilon = float(rho), float(epsilon)

    def step(self, w, g, s, x):
        squares = self.rho * s.s + (1 - self.rho) * (g * g)
        d = ops.sqrt((s.t + self.epsilon) / (squares + self.epsilon)) * g
        return w - x.eta * d, {"s": squares, "t": self.rho * s.t + (1 - self.rho) * (d * d)}


class Adam(Rule):
    """r = v r + (1-v) g g;  s = m s + u g;  w -= eta sqrt(1-v^c) / (1-m^c) s / (sqrt(r) + eps)   (Kingma 2015; c counts updates)

    The second correction stays 1 - m^c where the gain is not one, as in CNTK.
    """

    states = {"s": 0.0, "r": 0.0}
    momenta = ("momentum", "variance momentum")
    counters = {"c": 0}
    of_rows = "adam"
    row_numbers: tuple[str, ...] = ("m", "u", "v", "rate", "v1")

    def __init__(self, unit_gain: bool, epsilon: float):
        super().__init__(unit_gain)
        self.epsilon = float(epsilon)

    def numbers(self, n, eta, m, v):
        self.counted["c"] += 1
        c = self.counted["c"]
        return {"m": m, "u": self.gain(m), "v": v, "v1": 1 - v, "rate": eta * self.correction(c, m, v)}

    def correction(self, c, m, v):
        return math.sqrt(1 - v**c) / (1 - m**c) if m < 1 else 0.0

    def step(self, w, g, s, x):
        r = x.v * s.r + x.v1 * (g * g)
        moved = x.m * s.s + x.u * g
        return w - x.rate * moved / (ops.sqrt(r) + self.epsilon), {"s": moved, "r": r}


class AdaMax(Adam):
    """r = max(v r, |g|);  s = m s + u g;  w -= eta / (1-m^c) s / (r + eps)   (Kingma 2015, section 7.1)"""

    of_rows = "adamax"
    row_numbers = ("m", "u", "v", "rate")

    def numbers(self, n, eta, m, v):
        made = super().numbers(n, eta, m, v)
        del made["v1"]
        return made

    def correction(self, c, m, v):
        return 1 / (1 - m**c) if m < 1 else 0.0

    def step(self, w, g, s, x):
        r = ops.element_max(x.v * s.r, ops.abs(g))
        moved = x.m * s.s + x.u * g
        return w - x.rate * moved / (r + self.epsilon), {"s": moved, "r": r}


class FSAdaGrad(Rule):
    """r = v r + (1-v) g g;  c = v c + (1-v) n;  t = g min(10, sqrt(c / r));  s = m s + u t;  w -= eta s   (CNTK)

    CNTK leaves s as it was while the momentum of a schedule is 0.
    """

    states = {"s": 0.0, "r": 0.0}
    momenta = ("momentum", "variance momentum")
    counters = {"c": 0.0}
    of_rows = "fsadagrad"
    row_numbers = ("m", "u", "v", "eta", "v1", "root")

    def numbers(self, n, eta, m, v):
        self.counted["c"] = v * self.counted["c"] + (1 - v) * n
        return {"eta": eta, "m": m, "u": self.gain(m), "v": v, "v1": 1 - v, "root": math.sqrt(self.counted["c"])}

    def step(self, w, g, s, x):
        r = x.v * s.r + x.v1 * (g * g)
        # the floor only keeps 0 / 0 away: where r is 0, g is 0
        t = g * ops.element_min(x.root / ops.sqrt(ops.element_max(r, 1e-37)), 10.0)
        moved = x.m * s.s + x.u * t
        return w - x.eta * moved, {"s": moved, "r": r}


class RMSProp(Rule):
    """r = gamma r + (1-gamma) g g (begun with g g);  step grows by inc while the sign of g holds, else shrinks by dec, within
    [min, max], from 0.02;  a = step / sqrt(r + 1e-6);  w -= eta / mean(a) a g   (CNTK, after Tieleman 2012 and Rprop)"""

    states = {"r": 0.0, "sign": 0.0, "size": 0.02}
    counters = {"c": 0}

    def __init__(self, gamma: float, inc: float, dec: float, max: float, min: float, need_ave_multiplier: bool):
        super().__init__()
        self.gamma, self.inc, self.dec = float(gamma), float(inc), float(dec)
        self.max, self.min, self.average = float(max), float(min), bool(need_ave_multiplier)
        if self.max > LARGEST_STEP:  # steps that grow for ever would overflow, and their mean with them
            self.max = LARGEST_STEP

    def numbers(self, n, eta):
        first = float(self.counted["c"] == 0)
        self.counted["c"] = 1
        return {"eta": eta, "first": first}

    def step(self, w, g, s, x):
        square = g * g
        r = self.gamma * (s.r + x.first * square) + (1 - self.gamma) * square
        sign = ops.greater(g, 0.0) - ops.less(g, 0.0)
        grown = ops.element_min(s.size * self.inc, self.max)
        shrunk = ops.element_max(s.size * self.dec, self.min)
        size = ops.element_select(ops.greater(s.sign * sign, 0.0), grown, shrunk)
        a = size / ops.sqrt(r + 1e-6)
        eta = x.eta / _mean_over_tensor(a) if self.average else x.eta
        return w - eta * (a * g), {"r": r, "sign": sign, "size": size}


def _learner(
    rule: Rule,
    parameters: Any,
    lr: ScheduleLike,
    momenta: Sequence[ScheduleLike],
    options: Options,
    use_mean_gradient: bool | None,
    minibatch_size: int | None,
    epoch_size: int | None,
) -> Learner:
    if minibatch_size is None and use_mean_gradient:
        minibatch_size = 0
    rate = schedule_for(lr, minibatch_size, epoch_size, "learning rate")
    if use_mean_gradient and rate.minibatch_size == 1:
        rate.minibatch_size = 0  # per-sample rate and mean gradient would scale twice
    made = [schedule_for(m, minibatch_size, epoch_size, name) for m, name in zip(momenta, rule.momenta, strict=True)]
    return GraphLearner(rule, parameters, rate, made, options, minibatch_size)


def _gain(unit_gain: bool | None) -> bool:
    return _unit_gain if unit_gain is None else bool(unit_gain)


def sgd(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """Stochastic gradient descent.

    lr: a number, a list or a schedule. Regularisation weights and clipping threshold are per sample. minibatch_size: the size
    that numbers are meant for; IGNORE takes the mean gradient and scales nothing. ValueError for no or repeated parameters.
    """
    options = Options.among(locals())
    return _learner(SGD(), parameters, lr, (), options, use_mean_gradient, minibatch_size, epoch_size)


def momentum_sgd(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    momentum: ScheduleLike,
    unit_gain: bool | None = None,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """Gradient descent with momentum; unit_gain: the gradient counts 1 - momentum (default: `default_unit_gain_value()`).

    Other arguments as `sgd`. Departure: CNTK reads the default of unit_gain once, at import; here it is read at each call.
    """
    options = Options.among(locals())
    rule = MomentumSGD(_gain(unit_gain))
    return _learner(rule, parameters, lr, (momentum,), options, use_mean_gradient, minibatch_size, epoch_size)


def nesterov(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    momentum: ScheduleLike,
    unit_gain: bool | None = None,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """Nesterov's accelerated gradient. Arguments as `momentum_sgd`. Source: Sutskever 2013."""
    options = Options.among(locals())
    rule = Nesterov(_gain(unit_gain))
    return _learner(rule, parameters, lr, (momentum,), options, use_mean_gradient, minibatch_size, epoch_size)


def adagrad(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    need_ave_multiplier: bool = True,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """AdaGrad; need_ave_multiplier: divide by a tensor's mean multiplier. Other arguments as `sgd`. Source: Duchi 2011."""
    options = Options.among(locals())
    rule = AdaGrad(need_ave_multiplier)
    return _learner(rule, parameters, lr, (), options, use_mean_gradient, minibatch_size, epoch_size)


def adadelta(
    parameters: Sequence[Parameter],
    lr: ScheduleLike | None = None,
    rho: float = 0.95,
    epsilon: float = 1e-8,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """AdaDelta; lr: 1 per sample when None. Other arguments as `sgd`. Source: Zeiler 2012."""
    options = Options.among(locals())
    lr = learning_parameter_schedule_per_sample(1.0) if lr is None else lr
    return _learner(AdaDelta(rho, epsilon), parameters, lr, (), options, use_mean_gradient, minibatch_size, epoch_size)


def fsadagrad(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    momentum: ScheduleLike,
    unit_gain: bool | None = None,
    variance_momentum: ScheduleLike | None = None,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """CNTK's AdaGrad with momentum and a floating variance. variance_momentum: 0.99999861 per sample when None; rest as `sgd`."""
    options = Options.among(locals())
    variance = momentum_schedule_per_sample(VARIANCE_MOMENTUM) if variance_momentum is None else variance_momentum
    rule = FSAdaGrad(_gain(unit_gain))
    return _learner(rule, parameters, lr, (momentum, variance), options, use_mean_gradient, minibatch_size, epoch_size)


def adam(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    momentum: ScheduleLike,
    unit_gain: bool | None = None,
    variance_momentum: ScheduleLike | None = None,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    epsilon: float = 1e-8,
    adamax: bool = False,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """Adam, or AdaMax. variance_momentum: 0.99999861 per sample when None; other arguments as `sgd`. Source: Kingma 2015."""
    options = Options.among(locals())
    variance = momentum_schedule_per_sample(VARIANCE_MOMENTUM) if variance_momentum is None else variance_momentum
    rule = (AdaMax if adamax else Adam)(_gain(unit_gain), epsilon)
    return _learner(rule, parameters, lr, (momentum, variance), options, use_mean_gradient, minibatch_size, epoch_size)


def rmsprop(
    parameters: Sequence[Parameter],
    lr: ScheduleLike,
    gamma: float,
    inc: float,
    dec: float,
    max: float,
    min: float,
    need_ave_multiplier: bool = True,
    l1_regularization_weight: float = 0.0,
    l2_regularization_weight: float = 0.0,
    gaussian_noise_injection_std_dev: ScheduleLike = 0.0,
    gradient_clipping_threshold_per_sample: float = INF,
    gradient_clipping_with_truncation: bool = True,
    use_mean_gradient: bool | None = None,
    minibatch_size: int | None = None,
    epoch_size: int | None = None,
) -> Learner:
    """CNTK's RMSProp with step sizes that grow by `inc` and shrink by `dec` within [min, max]. Other arguments as `adagrad`.

    Departure: max is at most 1e18, so that steps that grow for ever stay finite in float32.
    """
    options = Options.among(locals())
    rule = RMSProp(gamma, inc, dec, max, min, need_ave_multiplier)
    return _learner(rule, parameters, lr, (), options, use_mean_gradient, minibatch_size, epoch_size)


def universal(update_func: Callable[[list[Parameter], list[Any]], Any], parameters: Sequence[Parameter]) -> Learner:
    """A learner whose rule is a graph: update_func(parameters, gradients) returns a function that assigns the new values.

    Raises ValueError where update_func does not take two arguments or a shape is not known.
    """
    return UniversalLearner(update_func, parameters)
