"""cogkit: a cognitive toolkit in the line of CNTK v2. `import cogkit as C`."""

import importlib as _importlib

from cogkit import cntk_modules, initializer, random
from cogkit.axis import *  # noqa: F403
from cogkit.default_options import *  # noqa: F403
from cogkit.engine import device
from cogkit.engine import session as _session  # evaluates functions
from cogkit.engine.arrays import NDArrayView
from cogkit.engine.device import *  # noqa: F403
from cogkit.engine.seeding import set_seed
from cogkit.engine.values import Value, asarray, asvalue
from cogkit.errors import *  # noqa: F403
from cogkit.functions import *  # noqa: F403
from cogkit.initializer import *  # noqa: F403
from cogkit.learners import *  # noqa: F403
from cogkit.losses import *  # noqa: F403
from cogkit.metrics import *  # noqa: F403
from cogkit.ops import *  # noqa: F403
from cogkit.ops.linear import TIMES_NO_INFERRED_INPUT_RANK
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed
from cogkit.store import *  # noqa: F403
from cogkit.train import *  # noqa: F403
from cogkit.variables import *  # noqa: F403

__version__ = "0.1.0"

_later = {
    "layers": "cogkit.layers",
    "data": "cogkit.data",
    "parallel": "cogkit.parallel",
    "debugging": "cogkit.debugging",
    "logging": "cogkit.logging",
    "ops": "cogkit.ops",
    "sequence": "cogkit.ops.sequence",
    "losses": "cogkit.losses",
    "metrics": "cogkit.metrics",
    "learners": "cogkit.learners",
    "train": "cogkit.train",
}


# Names that CNTK has at its top and that such a sub-package has here.
_names_later = {
    "INFINITELY_REPEAT": "cogkit.data",
    "MinibatchData": "cogkit.data",
    "Communicator": "cogkit.parallel",
    "DistributedLearner": "cogkit.parallel",
    "block_momentum_distributed_learner": "cogkit.parallel",
    "WorkerDescriptor": "cogkit.parallel",
    "data_parallel_distributed_learner": "cogkit.parallel",
}


def __getattr__(name: str):
    """Sub-packages are imported when first asked for, so that `import cogkit` stays quick."""
    if name in _names_later:
        return getattr(_importlib.import_module(_names_later[name]), name)
    if name in _later or name in cntk_modules.CNTK_MODULES:
        module = _importlib.import_module(_later.get(name, f"cogkit.{name}"))
        globals()[name] = module
        return module
    raise AttributeError(f"module cogkit has no attribute {name!r}")
