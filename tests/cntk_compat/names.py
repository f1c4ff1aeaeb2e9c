"""Which modules of cogkit stand behind each module of CNTK: those of `cogkit.cntk_modules`, and here the others."""

from cogkit.cntk_modules import CNTK_MODULES

# second names that CNTK gives some of its modules
SECOND_NAMES = {
    "distributed": "train.distributed",
    "evaluator": "eval.evaluator",
    "functions": "ops.functions",
    "sequence": "ops.sequence",
    "trainer": "train.trainer",
    "utils": "internal.utils",
    "ops.cntk_py": "cntk_py",
}

# CNTK's module (without `cntk.`; '' is cntk itself) -> modules whose names it holds, the first one first
MODULES: dict[str, list[str]] = {
    "": ["cogkit", "cntk_compat.internals"],
    "axis": ["cogkit.axis"],
    "cntk_py": ["cntk_compat.swig", "cntk_compat.native"],
    "contrib.crosstalkcaffe": [],
    "debugging": ["cogkit.debugging"],
    "default_options": ["cogkit.default_options"],
    "initializer": ["cogkit.initializer"],
    "internal": ["cntk_compat.internals"],
    "internal.sanitize": ["cntk_compat.internals"],
    "internal.swig_helper": ["cntk_compat.internals"],
    "internal.utils": ["cntk_compat.internals"],
    "layers": ["cogkit.layers", "cogkit.functions", "cogkit"],
    "layers.models": ["cogkit.layers"],
    "layers.sequence": ["cogkit.layers"],
    "layers.typing": ["cogkit.layers.typing"],
    "learners": ["cogkit.learners"],
    "logging": ["cogkit.logging"],
    "logging.graph": ["cogkit.logging"],
    "losses": ["cogkit.losses"],
    "metrics": ["cogkit.metrics"],
    "misc": [],
    "misc.converter": [],
    "misc.optimized_rnnstack_converter": [],
    "ops": ["cntk_compat.native", "cogkit.ops", "cogkit.functions", "cogkit"],
    "ops.sequence": ["cntk_compat.inputs", "cogkit.ops.sequence"],
    "random": ["cogkit.random"],
    "train": ["cogkit.train"],
    "variables": ["cogkit.variables"],
}
MODULES |= {name: sources for name, sources in CNTK_MODULES.items() if name not in SECOND_NAMES}
MODULES = {name: MODULES[name] for name in sorted(MODULES)}  # a package before what is in it
