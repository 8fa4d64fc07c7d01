"""What ships, what setup.py does with and without a compiler, and what must not be in the repository."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import glsk
from glsk.requiring import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def setup_py() -> ModuleType:
    """setup.py as a module; setup() is not called."""
    spec = importlib.util.spec_from_file_location("glsk_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path, setup_py, monkeypatch) -> Path:
    """A small source tree, in which setup_py now works."""
    for name, text in {
        "glsk/__init__.py": "",
        "kernels/__init__.py": "",
        "csrc/value.h": "#define VALUE 1\n",
        "csrc/once.cpp": '#include "value.h"\nint once() { return VALUE; }\n',
        "csrc/cpu/each.isa.cpp": "namespace GLSK_ISA { int each() { return 2; } }\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(setup_py, "ROOT", tmp_path)
    return tmp_path


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")


def test_version_is_the_same_everywhere():
    assert PROJECT["version"] == glsk.__version__ == importlib.metadata.version("glsk")
    assert f"## [{glsk.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_types_and_licence_ship():
    assert Path(glsk.__file__).with_name("py.typed").is_file()
    assert PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "Version 2.0" in importlib.metadata.distribution("glsk").read_text("licenses/LICENSE")


def test_kernels_is_installed_inside_the_package():
    spec = importlib.util.find_spec("glsk.kernels")
    assert spec is not None
    assert Path(spec.origin).read_bytes() == (ROOT / "kernels" / "__init__.py").read_bytes()


def test_whatever_is_imported_is_declared():
    declared = [Requirement(r) for rs in PROJECT["optional-dependencies"].values() for r in rs]
    names = {r.name for r in (*declared, *map(Requirement, PROJECT["dependencies"]))}
    standard = sys.stdlib_module_names | {"glsk", "_glsk_command"}
    for path in (ROOT / "glsk").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for found in ast.walk(tree):
            modules = [a.name for a in found.names] if isinstance(found, ast.Import) else []
            modules += [found.module] if isinstance(found, ast.ImportFrom) and not found.level else []
            unknown = {m.partition(".")[0] for m in modules} - standard - names
            assert not unknown, f"{path}: {unknown}"
    assert set(EXTRAS) <= names
    extras = {e: {Requirement(r).name for r in rs} for e, rs in PROJECT["optional-dependencies"].items()}
    assert all(package in extras[extra] for package, extra in EXTRAS.items())


BARE = """
import sys

class Bare:  # an environment without some packages
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
"""


def bare(script: str, absent: Iterable[str] = EXTRAS) -> subprocess.CompletedProcess[str]:
    text = BARE.replace("ABSENT", repr(set(absent))) + script
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)


def test_the_library_needs_pytorch_and_numpy_alone():
    ended = bare(
        "import torch, glsk, glsk.formats, glsk.verify, glsk.data, glsk.objectives, glsk.training\n"
        "net = glsk.models.build('cnn3', (1, 8, 8))\n"
        "lower, _ = glsk.BoundedModule(net, (1, 8, 8)).compute_bounds(torch.rand(2, 1, 8, 8), eps=0.1)\n"
        "assert lower.shape == (2, 10)\n"
        "try: glsk.formats.onnx_bytes(net, (1, 8, 8))\n"
        "except glsk.MissingPackageError as error: print(error)\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "writing ONNX: the package onnx is not installed: pip install 'glsk[verify]'\n"


@pytest.mark.parametrize(
    "command", ["import _glsk_command; _glsk_command.main()", "import runpy; runpy.run_module('glsk')"]
)
def test_the_command_names_what_it_needs(command):
    ended = bare(command.replace("run_module('glsk')", "run_module('glsk', run_name='__main__')"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"glsk: error: the package \w+ is not installed: pip install 'glsk\[cli\]'\n", ended.stderr)


def test_a_command_names_the_extra_that_it_needs():
    script = "import sys, _glsk_command; sys.argv = ['glsk', 'bounds', 'none']; _glsk_command.main()"
    ended = bare(script, {"safetensors"})
    assert ended.returncode == 2
    assert ended.stderr == "glsk: error: the package safetensors is not installed: pip install 'glsk[cli]'\n"


def test_every_requirement_is_pinned():
    text = (ROOT / "constraints.txt").read_text()
    pinned = {re.split(r"[=<>]", line)[0].lower() for line in text.splitlines() if line and not line.startswith("#")}
    wanted = [*PROJECT["dependencies"], *(r for rs in PROJECT["optional-dependencies"].values() for r in rs)]
    assert {re.split(r"[=<>;\[ ]", requirement)[0].lower() for requirement in wanted} <= pinned | {"glsk"}
    assert "://" not in text


def test_triton_is_pinned_to_the_version_that_pytorchs_cuda_build_asks_for():
    """Another would be a conflict, on every machine whose PyTorch is a CUDA build."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    of_torch = [Requirement(text) for text in importlib.metadata.requires("torch")]
    for wanted in (r for r in of_torch if r.name == "triton"):
        assert pins["triton"] in wanted.specifier
    if pins["torch"] == "2.13.0":
        assert pins["triton"] == "3.7.1"
    assert any(pins["triton"] in Requirement(text).specifier for text in PROJECT["optional-dependencies"]["triton"])


def test_tracked_files_name_no_machine():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    own = [re.escape(f"{folder}/") for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    machine = re.compile("|".join([*own, r"/(?:home|Users)/[a-z]\w*/"]))
    for name in filter(None, listing.stdout.split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data:
            found = machine.search(data.decode())
            assert found is None, f"{name} names {found.group()}"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"PATH": ""}, r"no C\+\+ compiler"),
        ({"PATH": "/nonexistent", "CXX": "/nonexistent/g++"}, "CXX=/nonexistent/g"),
        ({"PATH": os.defpath, "GLSK_CPU": "0"}, "GLSK_CPU=0"),
    ],
)
def test_cpu_part_is_left_out_for_a_reason(setup_py, environ, reason):
    assert re.search(reason, setup_py.cpu_obstacle(environ))


def test_switches_must_be_0_or_1(setup_py):
    with pytest.raises(SystemExit, match="GLSK_CPU must be 0 or 1, got 'no'"):
        setup_py.cpu_obstacle({"GLSK_CPU": "no"})


def test_cuda_part_is_left_out_for_a_reason(setup_py, source, monkeypatch):
    assert setup_py.cuda_obstacle({"GLSK_CUDA": "0"}) == "GLSK_CUDA=0"
    assert setup_py.cuda_obstacle({"GLSK_CUDA": "1"}) == "there are no CUDA sources"
    (source / "csrc" / "cuda").mkdir()
    (source / "csrc" / "cuda" / "kernel.cu").touch()
    monkeypatch.setattr(setup_py, "find_nvcc", lambda environ: None)
    assert setup_py.cuda_obstacle({}) == "nvcc was not found"
    with pytest.raises(SystemExit, match="GLSK_CUDA=1, but nvcc was not found"):
        setup_py.cuda_obstacle({"GLSK_CUDA": "1"})


def test_cuda_sources_are_kept_apart(setup_py, source):
    (source / "csrc" / "cuda").mkdir()
    (source / "csrc" / "cuda" / "bindings.cpp").touch()
    cpu, cuda = setup_py.split_sources()
    assert {path.as_posix() for path in cpu} == {"csrc/once.cpp", "csrc/cpu/each.isa.cpp"}
    assert [path.as_posix() for path in cuda] == ["csrc/cuda/bindings.cpp"]


def test_without_a_compiler_a_pure_python_wheel_is_built_with_one_line(source):
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").touch()
    environ = {**os.environ, "CXX": "/nonexistent/g++"}
    environ.pop("GLSK_CUDA", None)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
    result = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("glsk:")]
    assert said == [
        "glsk: the CPU backend was not built (CXX=/nonexistent/g++ was not found); glsk will use the reference backend."
    ]
    assert [path.name for path in (source / "dist").iterdir()] == [f"glsk-{glsk.__version__}-py3-none-any.whl"]


@needs_compiler
def test_compile_error_stops_the_install_with_the_compilers_message(setup_py, source):
    (source / "csrc" / "once.cpp").write_text("int once() { return undeclared_name; }\n")
    with pytest.raises(setup_py.CompileError, match="undeclared_name"):
        setup_py.compile_all(setup_py.cpu_units(setup_py.find_cxx(), []))


@needs_compiler
def test_each_instruction_set_gets_its_object_and_only_stale_ones_are_compiled(setup_py, source):
    units = setup_py.cpu_units(setup_py.find_cxx(), [])
    assert [unit.obj.name for unit in units] == ["once.o", *(f"each.isa.{isa}.o" for isa in setup_py.ISA_FLAGS)]
    assert all(unit.is_stale() for unit in units)
    setup_py.compile_all(units)
    assert not any(unit.is_stale() for unit in units)

    later = time.time() + 10
    os.utime(source / "csrc" / "value.h", (later, later))
    assert [unit.obj.name for unit in units if unit.is_stale()] == ["once.o"]

    other = setup_py.Unit(units[1].obj, [*units[1].command, "-O0"])
    assert other.is_stale()


def test_what_is_to_be_cited_is_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(glsk.__version__)}$", text, re.MULTILINE)
    assert re.search(rf"^license: {PROJECT['license']}$", text, re.MULTILINE)
