"""Package map and extensions, both found by glob: adding a package or a .pyx file edits nothing here.

Environment switches:
    COGKIT_ONLY=core/engine/cpu/pointwise.pyx   build these extensions alone (comma-separated; none: COGKIT_ONLY=none)
    COGKIT_JOBS=1                               extensions built at a time (default: one a CPU)
    COGKIT_WITHOUT_ONEDNN=1                     leave out the extensions that need oneDNN
    COGKIT_FATBINS=1                            compile the CUDA kernels ahead, into the built package (`make wheel`; needs nvcc)
    COGKIT_SANITIZE=1                           bounds checks, address and undefined-behaviour sanitizers (see `make sanitize`)
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)

PACKAGE_MAP = {
    "cogkit": "core",
    "cogkit.layers": "layers",
    "cogkit.data": "data",
    "cogkit.parallel": "parallel",
    "cogkit.papers": "papers",
}
# What an installed package reads at run time besides Python: tables, templates, CUDA text and the headers that it includes.
DATA_SUFFIXES = ("csv", "md", "json", "html", "j2", "css", "js", "yaml", "toml", "cu", "cuh", "h", "mplstyle", "fatbin", "sha256")

SANITIZE = os.environ.get("COGKIT_SANITIZE") == "1"
DIRECTIVES = {"language_level": "3", "boundscheck": SANITIZE, "wraparound": False, "embedsignature": True}
if SANITIZE:
    COMPILE_ARGS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    LINK_ARGS = ["-fsanitize=address,undefined"]
else:
    COMPILE_ARGS = ["-O3", "-g0"]
    LINK_ARGS = []
COMPILE_ARGS = ["-std=c++17", *COMPILE_ARGS, "-fopenmp", "-fno-math-errno"]
LINK_ARGS = [*LINK_ARGS, "-fopenmp"]
CYTHON_DIR = Path("build", "cython-sanitize" if SANITIZE else "cython")


def find_packages():
    """Dotted names of all folders of the map that hold an __init__.py, sub-folders included."""
    packages = []
    for package, folder in PACKAGE_MAP.items():
        for init in sorted(Path(folder).glob("**/__init__.py")):
            packages.append(".".join([package, *init.parent.relative_to(folder).parts]))
    return packages


def read_header(pyx):
    """The `# key: word word` comments above the first line of code of a .pyx file."""
    fields = {"sources": [], "libraries": []}
    for line in pyx.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        key, _, words = line.lstrip("# ").partition(":")
        if key.strip() in fields:
            fields[key.strip()] += words.split()
    return fields


def find_headers(files, by_name):
    """All of our headers and .pxi files that these files include, directly or not (told apart by their file names)."""
    found, todo = set(), list(files)
    while todo:
        path = Path(todo.pop())
        text = path.read_text(encoding="utf-8") if path.exists() else ""  # the compiler will say what is missing
        for name in re.findall(r'(?:include|extern from)\s+"([^"]+)"', text):
            new = set(by_name.get(Path(name).name, [])) - found
            found |= new
            todo += new
    return sorted(found)


def onednn_paths():
    """(folder of dnnl.h, path of libdnnl.so.3), or None on machines for which no oneDNN wheel is made."""
    try:
        header = next(f for f in importlib.metadata.files("onednn-devel-cpu-gomp") if f.name == "dnnl.h")
        library = next(f for f in importlib.metadata.files("onednn-cpu-gomp") if f.name == "libdnnl.so.3")
    except (importlib.metadata.PackageNotFoundError, StopIteration, TypeError):
        if sys.platform == "linux" and platform.machine() == "x86_64":
            raise SystemExit(
                "setup.py: expected the wheels onednn-cpu-gomp and onednn-devel-cpu-gomp 2023.2.0 in this Python, "
                "found none; pip install them (or set COGKIT_WITHOUT_ONEDNN=1 to build without oneDNN)"
            ) from None
        return None
    # The header comes twice, in include/ and include/oneapi/dnnl/; the shorter path is the folder that both hang from.
    headers = [f for f in importlib.metadata.files("onednn-devel-cpu-gomp") if f.name == header.name]
    shortest = min(headers, key=lambda f: len(f.parts))
    return str(Path(shortest.locate()).resolve().parent), str(Path(library.locate()).resolve())


def find_extensions():
    """One Extension for each .pyx of the map, with the C++ sources and libraries that its header comments name."""
    if os.environ.get("COGKIT_ONLY") == "none":
        return []
    import numpy

    only = {str(Path(p)) for p in os.environ.get("COGKIT_ONLY", "").split(",") if p}
    by_name = {}
    for folder in PACKAGE_MAP.values():
        for path in [*Path(folder).glob("**/*.h"), *Path(folder).glob("**/*.pxi")]:
            by_name.setdefault(path.name, []).append(str(path))
    extensions, seen = [], set()
    for package, folder in PACKAGE_MAP.items():
        for pyx in sorted(Path(folder).glob("**/*.pyx")):
            seen.add(str(pyx))
            if only and str(pyx) not in only:
                continue
            fields = read_header(pyx)
            sources = [str(pyx), *(str(pyx.parent / s) for s in fields["sources"])]
            extension = Extension(
                ".".join([package, *pyx.relative_to(folder).with_suffix("").parts]),
                sources=sources,
                include_dirs=[str(pyx.parent), "core/engine", "core/engine/cpu", numpy.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                libraries=[name for name in fields["libraries"] if name != "dnnl"],
                depends=[*find_headers(sources, by_name), "setup.py"],
                language="c++",
                extra_compile_args=COMPILE_ARGS,
                extra_link_args=list(LINK_ARGS),
            )
            if "dnnl" in fields["libraries"]:
                paths = None if os.environ.get("COGKIT_WITHOUT_ONEDNN") == "1" else onednn_paths()
                if paths is None:
                    print(f"setup.py: {pyx} left out: built without oneDNN")
                    continue
                extension.include_dirs.append(paths[0])
                # A full path records only the library's own name (libdnnl.so.3) in the extension: whoever loaded it first,
                # wherever it lies, serves. So a wheel built in one environment runs in another (core/engine/cpu/_load.py).
                extension.extra_link_args.append(paths[1])
            extensions.append(extension)
    if only - seen:
        raise SystemExit(
            f"setup.py: COGKIT_ONLY names {', '.join(sorted(only - seen))}: no such .pyx in {list(PACKAGE_MAP.values())}"
        )
    return extensions


class BuildPackages(build_py):
    """Python files and data; with COGKIT_FATBINS=1 the CUDA kernels, compiled."""

    def run(self):
        super().run()
        if os.environ.get("COGKIT_FATBINS") != "1" or self.editable_mode:
            return
        spec = importlib.util.spec_from_file_location("build_fatbins", ROOT / "core/engine/cuda/build_fatbins.py")
        fatbins = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fatbins)
        nvcc = shutil.which(os.environ.get("COGKIT_NVCC") or "nvcc")
        if nvcc is None:
            raise SystemExit("setup.py: COGKIT_FATBINS=1 expected nvcc, found none; install it or set COGKIT_NVCC")
        fatbins.build(nvcc, Path(self.build_lib, "cogkit", "engine", "cuda"))


class BuildExtensions(build_ext):
    """Cython and C++ for all extensions side by side; every broken one is named at the end, the others are built."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = int(os.environ.get("COGKIT_JOBS", 0)) or self.parallel or os.cpu_count() or 1

    def run(self):
        self.failures, self.found = [], len(self.extensions)
        super().run()
        if self.failures:
            raise SystemExit(
                "\n".join(["", f"setup.py: {len(self.failures)} of {self.found} extensions not built:", *self.failures])
            )

    def build_extensions(self):
        self.check_extensions_list(self.extensions)
        with ThreadPoolExecutor(self.parallel) as pool:
            results = list(pool.map(self._try, self.extensions))
        self.failures = [message for message in results if message]
        # The rest goes on its way (into the source tree, if in place) before run() raises.
        self.extensions[:] = [e for e, message in zip(self.extensions, results, strict=True) if not message]

    def _try(self, extension):
        pyx = extension.sources[0]
        try:
            self.build_extension(extension)
        except Exception as error:  # a compiler's failure has many classes; each is this one extension's
            return f"  {pyx}: {error} (its messages are above; COGKIT_ONLY={pyx} python setup.py build_ext --inplace)"

    def build_extension(self, extension):
        # Generated text lies under build/, so that pointwise.pyx and a hand-written pointwise.cpp can be neighbours.
        pyx = Path(extension.sources[0])
        generated = CYTHON_DIR / pyx.with_suffix(".cpp")
        inputs = [pyx, *(Path(p) for p in extension.depends if not p.endswith(".h"))]
        if not generated.exists() or generated.stat().st_mtime < max(p.stat().st_mtime for p in inputs):
            generated.parent.mkdir(parents=True, exist_ok=True)
            directives = ",".join(f"{k}={v}" for k, v in DIRECTIVES.items())
            command = [sys.executable, "-m", "cython", "--cplus", "-X", directives, "--module-name", extension.name]
            done = subprocess.run([*command, "-o", str(generated), str(pyx)])
            if done.returncode:
                generated.unlink(missing_ok=True)
                raise RuntimeError("Cython stopped")
        extension.sources = [str(generated), *extension.sources[1:]]
        super().build_extension(extension)


setup(
    packages=find_packages(),
    package_dir=PACKAGE_MAP,
    package_data={"": [f"**/*.{suffix}" for suffix in DATA_SUFFIXES]},
    include_package_data=False,
    ext_modules=find_extensions(),
    cmdclass={"build_ext": BuildExtensions, "build_py": BuildPackages},
    zip_safe=False,
)
