"""`cogkit.debugging` on the CUDA engine: NaN by node and line, values of any node, a profile, `explain`."""

import numpy as np
import pytest

import cogkit as C
from cogkit import debugging

F4 = np.float32


@pytest.fixture(autouse=True)
def _engine(cuda_driver):
    with C.device.use_engine("cuda"):
        yield


def net():
    x = C.input_variable(3, needs_gradient=True)
    hidden = C.log(C.layers.Dense(4, init=1.0, name="hidden")(x), name="planted")
    return x, C.reduce_sum(hidden * 2.0)


def test_a_planted_nan_is_found_by_node_and_line():
    x, z = net()
    with (
        pytest.raises(Exception, match=r"planted' \(test_debugging.py:\d+\): expected finite values, got nan"),
        debugging.checked(),
    ):
        z.eval({x: -np.ones((2, 3), F4)})


def test_values_of_any_node_are_those_of_the_cpu():
    x, z = net()
    data = {x: np.arange(1, 7, dtype=F4).reshape(2, 3)}
    there = debugging.dump(z, data)
    with C.device.use_engine("cpu"):
        here = debugging.dump(z, data)
    assert len(there) == len(here) > 2
    for a, b in zip(there, here, strict=True):
        for u, v in ((a.value, b.value), (a.gradient, b.gradient)):
            if v is not None:
                np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)


def test_a_profile_has_a_line_for_each_instruction():
    x, z = net()
    data = {x: np.ones((2, 3), F4)}
    z.eval(data)
    with debugging.profile() as p:
        z.eval(data)
    table = p.table()
    assert "pointwise.reduce" in table and "products." in table


def test_explain_names_kernels_and_their_grids():
    x, z = net()
    text = z.explain({x: np.ones((2, 3), F4)})
    assert "products." in text and "<[1, 1, 1]" in text and "peak: arena" in text
