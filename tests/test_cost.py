"""The table of what each pass should cost is that of the code as it is, and what is measured takes its place in it."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import glsk
from bench import passes
from bench.cost import deep, gradient, sass, windows
from bench.cost.device import Cost, Device, Work, resident
from bench.cost.wgmma import by_wgmma
from glsk import models

ROOT = Path(__file__).resolve().parents[1]


class Code(sass.Compiled):
    """In the place of compiled kernels: half of the instructions are multiply-adds."""

    def __init__(self) -> None: ...

    def registers(self, part: str) -> int:
        return 168

    def fma_share(self, part: str, least: int) -> float:
        return 0.5


def run(*arguments: str) -> subprocess.CompletedProcess:
    """A process without the interpreter, which cannot compile."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def geometry(net: str) -> tuple:
    return glsk.BoundedModule(models.build(net), (1, 28, 28)).chain.geometry


def test_the_table_is_up_to_date() -> None:
    pytest.importorskip("triton")
    done = run("-m", "bench.cost", "--check")
    if "cannot be" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def test_the_table_sends_passes_where_the_backend_does() -> None:
    of_backend, of_table = (
        re.search(r"^TRITON_FROM = (\S+)", (ROOT / path).read_text(), re.MULTILINE)[1]
        for path in ("glsk/backends/cuda_select.py", "bench/cost/__main__.py")
    )
    assert of_backend == of_table


@torch.no_grad()
def test_useful_multiply_adds_respect_borders() -> None:
    """Convolutions whose weights are one count the taps."""
    first, second = nn.Conv2d(1, 8, 5, 2, 2, bias=False), nn.Conv2d(8, 8, 4, 2, 1, bias=False)
    for conv in (first, second):
        conv.weight.fill_(1.0)
    taps = first(torch.ones(1, 1, 28, 28))  # of every hidden unit
    assert windows.useful(geometry("cnn3")[:2], None) == 2 * float((second(torch.ones_like(taps)) + second(taps)).sum())


PAPER = [("cnn3", 1, 2.06e6), ("cnn5", 1, 8.3e6), ("cnn5", 2, 45e6), ("cnn5", 3, 314e6)]


@pytest.mark.parametrize(("net", "k", "macs"), PAPER)
def test_the_passes_of_the_paper(net: str, k: int, macs: float) -> None:
    assert windows.useful(geometry(net)[: k + 1], None) == pytest.approx(macs, rel=0.05)


def test_a_gradient_is_three_times_the_arithmetic_of_a_pass() -> None:
    layers = geometry("cnn3")
    hidden, margins = (gradient.cost(some, rows, Code()).work for some, rows in ((layers[:2], None), (layers, 9)))
    assert hidden.executed == 3 * 784 * 4 * 4 * 8 * (1 + 5 * 5)  # an inner row's taps, and each one's below
    assert hidden.useful == 3 * windows.useful(layers[:2], None)
    assert margins.executed == pytest.approx(margins.useful * 12 / 9)
    assert hidden.instructions == hidden.fma / 32 / 0.5


def test_time_is_that_of_the_busiest_resource() -> None:
    device = Device(multiprocessors=10, clock_hz=1e9, fma_per_s=1e12, l2_bytes_per_s=1e12)
    work = Work(fma=1e6, instructions=1e4, l2=2e6) + Work(l2=1e6).times(2)
    assert device.times(work)["L2"] == pytest.approx(4e-6)
    assert Cost("", "", work, 8).bound(device) == "L2"
    assert Cost("", "", work, 8).seconds(device) == pytest.approx(4e-6 / 0.8)
    assert Cost("", "", work, 4).seconds(device) == pytest.approx(4e-6 / 0.55)
    assert resident(168, 0, 4) == 12
    assert resident(168, 113 << 10, 4) == 4


def test_measured_rates_take_the_place_of_the_data_sheets(tmp_path: Path) -> None:
    path = tmp_path / "constants.json"
    path.write_text(json.dumps({"device": "H100", "fma_per_s": 2e13, "hbm_bytes_per_s": 3e12}))
    device = Device.measured(path)
    assert (device.fma_per_s, device.hbm_bytes_per_s, device.multiprocessors) == (2e13, 3e12, 132)
    assert device.source == "measured: H100"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"constants.json: holds none"):
        Device.measured(path)


def test_loops_are_counted() -> None:
    code = """Function : some_kernel
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/                   FFMA R2, R3, R4, R2 ;
        /*0020*/              @!P0 FFMA R2, R3, R4, R2 ;
        /*0030*/               @P1 BRA 0x10 ;
        /*0040*/                   EXIT ;
"""
    assert sass.loops(code, "some") == [Counter(FFMA=2, BRA=1)]


def test_wgmma_and_one_product_only_take_away() -> None:
    layers = geometry("cnn5")[:4]
    code = deep.Code({1: 294, 2: 315}, 258, 59)
    one_product = deep.Code({1: 228, 2: 233}, 220, 32, parts=1)
    where = deep.layout(layers)
    now, asynchronous, one = (deep.count(layers, where, c) for c in (code, by_wgmma(code), one_product))
    assert asynchronous.instructions < now.instructions
    assert (asynchronous.mma, asynchronous.wgmma) == (0, now.mma)
    assert now.executed == asynchronous.executed == one.executed
    assert one.mma == now.mma / 3


def test_a_measured_time_takes_its_place(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    for time, ns in (("2026-01-02", 150.4), ("2026-01-01", 99.0)):
        row = {"net": "cnn3", "pass": "layer 1", "direction": "forward", "backend": "cuda", "ns": ns}
        content = {"machine": {"time": time, "device": "H100"}, "passes": [row]}
        (tmp_path / f"passes-{time}.json").write_text(json.dumps(content))
    script = (
        "from pathlib import Path; from bench.cost import __main__ as table; "
        f"table.RESULTS = Path({str(tmp_path)!r}); print(table.measured())"
    )
    done = run("-c", script)
    wanted = {("cnn3", "layer 1", "forward", "cuda"): ("150", "`cuda` on H100 (2026-01-02)")}
    assert done.stdout.strip() == str(wanted), done.stderr


@pytest.mark.parametrize(("backend", "directions"), [("cpu", ["forward", "gradient"]), ("reference", ["forward"])])
def test_every_pass_is_measured(backend: str, directions: list[str]) -> None:
    if glsk.backends.why_missing(backend) is not None:
        pytest.skip(f"{backend} is not here")
    found = list(passes.measure("cnn3", 2, 1, "cpu", backend, repeats=1))
    wanted = [(name, direction) for name in ("layer 1", "margins") for direction in directions]
    assert [(row["pass"], row["direction"]) for row in found] == wanted
    assert all(row["ns"] > 0 for row in found)
