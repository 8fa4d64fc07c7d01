"""What ships, what CMake does with and without a compiler, and what must not be in the repository."""

import ast
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import glsk
from fuzz import build
from glsk.requiring import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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


@pytest.fixture
def tracked():
    """The files that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in filter(None, listing.stdout.split("\0")) if (ROOT / name).is_file()]


def test_tracked_files_name_no_machine(tracked):
    own = [re.escape(f"{folder}/") for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    machine = re.compile("|".join([*own, r"/(?:home|Users)/[a-z]\w*/"]))
    for path in tracked:
        data = path.read_bytes()
        if b"\0" not in data:
            found = machine.search(data.decode())
            assert found is None, f"{path} names {found.group()}"


def test_nothing_built_is_tracked_and_no_large_file(tracked):
    built = {".a", ".o", ".so", ".whl", ".gz", ".zip", ".pyc", ".cubin", ".ptx"}
    assert [path.name for path in tracked if path.suffix in built or path.stat().st_size > 2**20] == []


@pytest.fixture
def configure(tmp_path):
    """Runs CMake's configuration of glsk in a folder of its own and returns its status and output."""
    spec = importlib.util.spec_from_file_location("glsk_setup", ROOT / "setup.py")
    setup_py = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup_py)

    def run(**environ: str) -> tuple[int, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GLSK_") and k not in ("CXX", "CUDACXX")}
        command = [sys.executable, "-m", "cmake", "-S", str(ROOT), "-B", str(tmp_path), *setup_py.tools()]
        result = subprocess.run(command, env={**kept, **environ}, capture_output=True, text=True)
        return result.returncode, result.stdout + result.stderr

    return run


def test_without_a_compiler_both_parts_are_left_out_in_a_line_each(configure):
    status, said = configure(CXX="/nonexistent/g++")
    assert status == 0, said
    assert [line for line in said.splitlines() if line.startswith("glsk:")] == [
        "glsk: the CPU backend is not built (no C++ compiler was found)",
        "glsk: the CUDA backend is not built (no C++ compiler was found)",
    ]


@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
def test_clang_is_refused_for_the_cpu_part(configure):
    status, said = configure(CXX="clang++", GLSK_CUDA="0")
    assert status == 0, said
    assert re.search(r"the CPU backend is not built \(.*clang.* is Clang, and GCC is needed; set CXX=g\+\+\)", said)


def test_what_is_asked_for_and_cannot_be_had_stops_the_install(configure):
    status, said = configure(CXX="/nonexistent/g++", GLSK_CPU="1")
    assert status != 0
    assert "GLSK_CPU=1, but no C++ compiler was found" in said


@pytest.mark.parametrize("name", ["GLSK_CPU", "GLSK_CUDA"])
def test_switches_must_be_0_or_1(configure, name):
    status, said = configure(**{name: "no"})
    assert status != 0
    assert f"{name} must be 0 or 1, got 'no'" in said


def test_what_is_to_be_cited_is_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(glsk.__version__)}$", text, re.MULTILINE)
    assert re.search(rf"^license: {PROJECT['license']}$", text, re.MULTILINE)


def test_parts_are_left_out_when_that_is_asked_for(configure, tmp_path):
    status, said = configure(GLSK_CPU="0", GLSK_CUDA="0")
    assert status == 0, said
    assert "the CPU backend is not built (GLSK_CPU=0)" in said
    assert "_C" not in (tmp_path / "build.ninja").read_text().split()


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
def test_each_instruction_set_gets_its_objects_in_link_order(configure, tmp_path):
    status, said = configure(GLSK_CUDA="0")
    assert status == 0, said
    assert Path(build.compiler(tmp_path)).is_file()
    link = next(line for line in (tmp_path / "build.ninja").read_text().splitlines() if line.startswith("build _C"))
    wanted = ["portable", "avx2", "avx512"] if platform.machine() in ("x86_64", "AMD64") else ["portable"]
    found = re.findall(r"glsk_cpu_(\w+)\.dir", link.split("|")[0])
    assert list(dict.fromkeys(found)) == wanted
    for isa in wanted:
        assert found.count(isa) == len(list((ROOT / "csrc" / "cpu").glob("*.isa.cpp")))
