"""Build of glsk's native extensions; the rest of the package's description is in pyproject.toml.

    glsk._C      csrc/bindings.cpp, csrc/cpu/       needs a C++17 compiler; left out, with one line, where there is none
    glsk._CUDA   csrc/cuda/                         needs nvcc too; left out where there is none

Both see raw pointers through pybind11 and need no PyTorch, so one build serves every PyTorch version.
Objects are kept under build/ and compiled again only when a source, a header or the command has changed.

Environment:
    CXX               the C++ compiler (default: the first of g++, clang++, c++ that is found)
    CXXFLAGS LDFLAGS  appended to the compile and link commands
    GLSK_CPU          0: leave glsk._C out
    GLSK_CUDA         0: leave glsk._CUDA out; 1: fail if it cannot be built
    GLSK_CUDA_ARCHS   compute capabilities to build for, such as "80;90" (default: what nvcc knows of 80;90;100;120)
    NVCC, CUDA_HOME   where nvcc is (default: on the PATH, then /usr/local/cuda)
    MAX_JOBS          how many compilers run at once (default: one per core)
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).resolve().parent
CSRC = Path("csrc")  # this and OBJECTS are relative to ROOT, where every command runs
OBJECTS = Path("build", "objects", sysconfig.get_platform())

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
IS_MACOS = sys.platform == "darwin"

# csrc/cpu/*.isa.cpp are compiled once per instruction set and picked from at run time. The order is also the link
# order: of an inline function emitted by several objects the linker keeps the first, so the copy kept is always the
# one that runs on every machine.
ISA_FLAGS: dict[str, list[str]] = {"portable": []}
if IS_X86:
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma"]
    ISA_FLAGS["avx512"] = [
        *("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
        "-mprefer-vector-width=512",
    ]

CXX_FLAGS = [
    *("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"),
    *("-Wall", "-Wextra", "-Wno-psabi", f"-DGLSK_X86={int(IS_X86)}", f"-I{CSRC}"),
]
CUDA_ARCHS = ("80", "90", "100", "120")


# --- what can be built here ------------------------------------------------------------------------------------------


def find_cxx(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The C++ compiler as a command prefix, or None. A CXX that does not exist counts as none: it was asked for."""
    if command := shlex.split(environ.get("CXX", "")):
        return command if shutil.which(command[0], path=environ.get("PATH")) else None
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name, path=environ.get("PATH")):
            return [name]
    return None


def find_nvcc(environ: Mapping[str, str] = os.environ) -> str | None:
    """The path of nvcc, or None."""
    candidates = [environ.get("NVCC"), "nvcc", "/usr/local/cuda/bin/nvcc"]
    if home := environ.get("CUDA_HOME"):
        candidates.insert(1, str(Path(home, "bin", "nvcc")))
    found = (shutil.which(name, path=environ.get("PATH")) for name in candidates if name)
    return next((path for path in found if path), None)


def switch(name: str, environ: Mapping[str, str]) -> bool | None:
    """An environment variable that is 0, 1 or not set."""
    value = environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"glsk: {name} must be 0 or 1, got {value!r}")
    return bool(int(value)) if value else None


def cpu_obstacle(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why glsk._C is not built here, or None if it is."""
    if switch("GLSK_CPU", environ) is False:
        return "GLSK_CPU=0"
    if sys.platform == "win32":
        return "Windows is not supported"
    if find_cxx(environ) is None:
        wanted = environ.get("CXX")
        return f"CXX={wanted} was not found" if wanted else "no C++ compiler (g++, clang++ or c++) was found"
    return None


def cuda_obstacle(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why glsk._CUDA is not built here, or None if it is."""
    wanted = switch("GLSK_CUDA", environ)
    if wanted is False:
        return "GLSK_CUDA=0"
    if not any((ROOT / CSRC / "cuda").glob("*.cu")):
        return "there are no CUDA sources"
    if find_nvcc(environ) is None:
        obstacle = "nvcc was not found"
    elif find_cxx(environ) is None:
        obstacle = "no C++ compiler was found"
    else:
        return None
    if wanted:
        raise SystemExit(f"glsk: GLSK_CUDA=1, but {obstacle}")
    return obstacle


def native_extensions() -> list[Extension]:
    """The extensions that can be built here."""
    cpu, cuda = (sorted(sources) for sources in split_sources())
    extensions = []
    if cpu_obstacle() is None:
        extensions.append(Extension("glsk._C", sources=[str(path) for path in cpu]))
    if cuda_obstacle() is None:
        extensions.append(Extension("glsk._CUDA", sources=[str(path) for path in cuda]))
    return extensions


def split_sources() -> tuple[list[Path], list[Path]]:
    """The sources of glsk._C and those of glsk._CUDA, relative to ROOT."""
    cuda_root = CSRC / "cuda"
    every = [path.relative_to(ROOT) for suffix in ("cpp", "cu") for path in (ROOT / CSRC).rglob(f"*.{suffix}")]
    cpu = [path for path in every if cuda_root not in path.parents]
    return cpu, [path for path in every if cuda_root in path.parents]


# --- compiling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """One object file and the command that makes it; the compiler writes the headers it read to the .d file."""

    obj: Path
    command: list[str]

    @classmethod
    def of(cls, source: Path, compiler: list[str], flags: Iterable[str], variant: str = "") -> "Unit":
        obj = OBJECTS / source.with_suffix(f".{variant}.o" if variant else ".o")
        depfile = obj.with_suffix(".d")
        return cls(obj, [*compiler, *flags, "-MMD", "-MF", str(depfile), "-c", str(source), "-o", str(obj)])

    def is_stale(self) -> bool:
        """Whether the object is missing, was made by another command, or is older than a file it was made from."""
        record = ROOT / self.obj.with_suffix(".cmd")
        try:
            if record.read_text() != shlex.join(self.command):
                return True
            rule = (ROOT / self.obj.with_suffix(".d")).read_text().replace("\\\n", " ").split(":", 1)[1]
            inputs = [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", rule.strip())]
            made = (ROOT / self.obj).stat().st_mtime_ns
            return any((ROOT / name).stat().st_mtime_ns > made for name in inputs)
        except (OSError, IndexError):
            return True

    def compile(self) -> None:
        """Run the command; its success is recorded last, so that an interrupted build is seen as stale."""
        record = ROOT / self.obj.with_suffix(".cmd")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        run(self.command, CompileError)
        record.write_text(shlex.join(self.command))


def run(command: list[str], error: type[Exception]) -> None:
    """Run a compiler or linker, show its warnings, and raise error with its message if it fails."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    output = result.stdout + result.stderr
    if result.returncode != 0:
        hint = "Set GLSK_CUDA=0 (no CUDA backend) or GLSK_CPU=0 (no CPU backend) to install without this part."
        raise error(f"exit status {result.returncode} from\n  {shlex.join(command)}\n{output}\n{hint}")
    print(shlex.join(command), output, sep="\n", end="", flush=True)


def compile_all(units: list[Unit]) -> None:
    """Bring every object up to date, several compilers at a time."""
    stale = [unit for unit in units if unit.is_stale()]
    print(f"glsk: compiling {len(stale)} of {len(units)} objects", flush=True)
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for done in [pool.submit(unit.compile) for unit in stale]:
            done.result()


def env_flags(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


def binding_flags() -> list[str]:
    """Include paths of Python and pybind11; only bindings.cpp gets them."""
    import pybind11

    return [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]


def openmp_flags(cxx: list[str]) -> list[str]:
    """-fopenmp where the compiler can compile and link with it; Apple's clang cannot."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        command = [*cxx, "-fopenmp", *env_flags("CXXFLAGS"), str(probe), "-o", f"{probe}.out", *env_flags("LDFLAGS")]
        works = subprocess.run(command, capture_output=True).returncode == 0
    if not works:
        print("glsk: the compiler has no OpenMP; the CPU backend will use one thread", file=sys.stderr)
    return ["-fopenmp"] if works else ["-Wno-unknown-pragmas"]


def cpu_units(cxx: list[str], openmp: list[str]) -> list[Unit]:
    """The objects of glsk._C, in link order."""
    flags = [*CXX_FLAGS, *openmp, *env_flags("CXXFLAGS")]
    sources, _ = split_sources()
    once = [source for source in sources if not source.name.endswith(".isa.cpp")]
    per_isa = sorted(set(sources) - set(once))
    units = [
        Unit.of(source, cxx, [*flags, *(binding_flags() if source.name == "bindings.cpp" else [])])
        for source in sorted(once)
    ]
    for isa, isa_flags in ISA_FLAGS.items():
        units += [Unit.of(source, cxx, [*flags, *isa_flags, f"-DGLSK_ISA={isa}"], isa) for source in per_isa]
    return units


def cuda_archs(nvcc: str) -> list[str]:
    """The compute capabilities to build for."""
    if asked := os.environ.get("GLSK_CUDA_ARCHS"):
        return re.split(r"[;, ]+", asked.strip("; "))
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    return [arch for arch in CUDA_ARCHS if f"compute_{arch}" in known]


def cuda_units(nvcc: str) -> list[Unit]:
    """The objects of glsk._CUDA; nvcc compiles its C++ files too, since it knows where CUDA's headers are."""
    archs = cuda_archs(nvcc)
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    if archs and archs[-1].isdigit():  # PTX of the newest, for devices that come later; there is none of 90a and such
        targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    host = "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wno-psabi"
    flags = ["-std=c++17", "-O3", "-lineinfo", "--threads=0", f"-I{CSRC}", host, *host_compiler(), *targets]
    _, sources = split_sources()
    return [
        Unit.of(source, [nvcc], [*flags, *(binding_flags() if source.name == "bindings.cpp" else [])])
        for source in sorted(sources)
    ]


def host_compiler() -> list[str]:
    """Makes nvcc use CXX, if that is set, behind the scenes."""
    return ["-ccbin", shlex.split(os.environ["CXX"])[0]] if os.environ.get("CXX") else []


class BuildNative(build_ext):
    """Compile and link the two extensions with the rules above; setuptools only says where the result goes."""

    def build_extension(self, ext: Extension) -> None:
        cxx, nvcc = find_cxx(), find_nvcc()
        if ext.name == "glsk._CUDA":
            assert nvcc is not None  # native_extensions() has looked
            units = cuda_units(nvcc)
            link = [nvcc, "-shared", "-cudart=static", *host_compiler()]
        else:
            assert cxx is not None
            openmp = openmp_flags(cxx)
            units = cpu_units(cxx, openmp)
            link = [*cxx, *(["-bundle", "-undefined", "dynamic_lookup"] if IS_MACOS else ["-shared"]), *openmp]
        compile_all(units)
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        run([*link, *(str(unit.obj) for unit in units), "-o", str(target), *env_flags("LDFLAGS")], LinkError)


# --- the package -----------------------------------------------------------------------------------------------------


def packages() -> list[str]:
    """glsk and what lies below it, and kernels/ as glsk.kernels."""
    below = [f"glsk.kernels.{name}" for name in find_packages(str(ROOT / "kernels"))]
    return [*find_packages(str(ROOT), include=["glsk", "glsk.*"]), "glsk.kernels", *below]


def announce_missing_cpu() -> None:
    """Say in one line that the CPU backend is left out."""
    if (obstacle := cpu_obstacle()) is not None:
        print(
            f"glsk: the CPU backend was not built ({obstacle}); glsk will use the reference backend.",
            file=sys.stderr,
            flush=True,
        )


def remove_extensions_in_place() -> None:
    """Remove what an earlier editable install left of an extension that is now left out."""
    for name, obstacle in (("_C", cpu_obstacle()), ("_CUDA", cuda_obstacle())):
        if obstacle is not None:
            (ROOT / "glsk" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}").unlink(missing_ok=True)


if __name__ == "__main__":
    if {"build", "build_ext", "bdist_wheel", "editable_wheel"} & set(sys.argv):
        announce_missing_cpu()
    if "editable_wheel" in sys.argv:
        remove_extensions_in_place()
    setup(
        packages=packages(),
        py_modules=["_glsk_command"],
        ext_modules=native_extensions(),
        cmdclass={"build_ext": BuildNative},
    )
