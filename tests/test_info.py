"""glsk.info: what it says of this machine, and of a machine that lacks things."""

import importlib.metadata
import json
import sys
import types

import pytest
import torch

import glsk
from glsk import backends, info


def test_info_holds_plain_values_of_this_machine():
    found = json.loads(json.dumps(info.info()))
    assert set(found) == {"versions", "cpu", "threads", "backends", "auto", "cuda"}
    assert found["versions"]["glsk"] == glsk.__version__
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert 1 <= found["threads"]["usable"] <= found["threads"]["cores"]
    assert found["backends"] == backends.available()
    assert found["backends"]["reference"] is None
    assert len(found["cuda"]["devices"]) == torch.cuda.device_count()


def test_report_has_a_line_for_every_backend_with_the_reason_of_a_missing_one(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"reference": None, "cuda": "nvcc was not there"})
    lines = info.report().splitlines()
    assert "backend   reference: available" in lines
    assert "backend   cuda: not available: nvcc was not there" in lines


@pytest.mark.parametrize(
    ("missing", "no_cuda", "lines"),
    [
        ((), None, ("cpu tensors: the cpu backend", "cuda tensors: the cuda backend")),
        (("cuda",), None, ("cuda tensors: the triton backend (cuda not available, see above)",)),
        (
            ("cpu", "cuda", "triton"),
            None,
            (
                "cpu tensors: the reference backend, which is slow (cpu not available, see above)",
                "cuda tensors: the reference backend, which is slow (cuda and triton not available, see above)",
            ),
        ),
        (
            ("cuda", "triton"),
            "PyTorch sees no CUDA device",
            ("cuda tensors: there can be none: PyTorch sees no CUDA device",),
        ),
    ],
)
def test_report_says_what_auto_takes_and_why_nothing_faster(monkeypatch, missing, no_cuda, lines):
    monkeypatch.setattr(backends, "why_missing", lambda name: "not there" if name in missing else None)
    monkeypatch.setattr(info, "why_no_cuda", lambda: no_cuda)
    found = info.report().splitlines()
    for line in lines:
        assert f"auto      {line}" in found


def test_extension_speaks_for_the_processor(monkeypatch):
    extension = types.ModuleType("glsk._C")
    extension.cpu_features = lambda: ["avx2", "fma"]
    extension.isa = lambda: "avx2"
    monkeypatch.setitem(sys.modules, "glsk._C", extension)
    cpu = info.info()["cpu"]
    assert cpu["features"] == ["avx2", "fma"]
    assert cpu["isa"] == "avx2"
    assert "kernels   avx2 (chosen at run time)" in info.report().splitlines()


def test_without_the_extension_no_instruction_set_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "glsk._C", None)  # import raises ImportError
    assert info.info()["cpu"]["isa"] is None
    assert "chosen at run time" not in info.report()


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [
        ("processor : 0\nmodel name : A CPU\nflags : fpu avx2 avx512f\n\nmodel name : B\nflags : avx\n", "A CPU",
         ["avx2", "avx512f"]),
        ("processor : 0\nFeatures : fp asimd sve\n", None, ["asimd", "sve"]),
    ],
)  # fmt: skip
def test_processor_is_read_from_cpuinfo(tmp_path, text, model, features):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    found_model, found_features = info._proc_cpuinfo(path)
    assert found_features == features
    if model:
        assert found_model == model


def test_no_cpuinfo_is_no_error(tmp_path):
    assert info._proc_cpuinfo(tmp_path / "absent")[1] == []


def test_packages_that_are_not_installed_are_said_so(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("a-package-that-does-not-exist",))
    assert info.info()["versions"]["a-package-that-does-not-exist"] is None
    assert "a-package-that-does-not-exist (not installed)" in info.report()
