"""The CUDA kernels, compiled for the host and run thread by thread, against the float64 reference."""

import math
from types import ModuleType

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

import glsk
from glsk import backends, models, ops
from glsk.geometry import Geometry, encode
from glsk.precision import using_precision
from tests.chains import Case, cases, near_kink
from tests.cuda.emulation import Emulation
from tests.cuda.passes import chain, problem
from tests.support import METHODS, TOLERANCE, assert_bounds_close, assert_close
from tests.waits import WaitError, no_waits

DTYPES = (torch.float32, torch.float64)
FEW = {"max_units": 50, "samples": (1, 2, 5)}  # the emulation is slow
SMALL = ((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)])

# Chains that the specialised kernels serve: what they are made for, and everything about it that may vary.
PATCH = {
    "CNN3": ((1, 28, 28), [(8, 5, 2, 2), (8, 4, 2, 1)]),
    "CNN3 on CIFAR-10": ((3, 32, 32), [(8, 5, 2, 2), (8, 4, 2, 1)]),
    "odd sizes": ((2, 13, 10), [(3, 5, 2, 0), (5, 4, 3, 2)]),
    "wide padding": ((1, 9, 9), [(2, 5, 2, 3), (3, 4, 1, 3)]),
}
MARGINS = {
    "CNN3": ((1, 28, 28), [(8, 5, 2, 2), (8, 4, 2, 1)]),
    "CNN3 on CIFAR-10": ((3, 32, 32), [(8, 5, 2, 2), (8, 4, 2, 1)]),
    "odd sizes": ((2, 13, 10), [(3, 5, 2, 0), (5, 4, 2, 2)]),
    "wide padding": ((1, 9, 11), [(6, 5, 2, 3), (2, 4, 2, 3)]),
    "one channel": ((1, 8, 8), [(1, 5, 2, 2), (1, 4, 2, 1)]),
}
SIDES = [(1, False), (2, False), (1, True)]  # signs, hbox


def agree(found: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@given(case=cases(**FEW))
@settings(max_examples=15)
def test_random_chains(launcher: ModuleType, method: str, dtype: torch.dtype, case: Case) -> None:
    assume(not near_kink(case, method))
    found = case.bounds(method, "cuda", dtype, prune=False)
    assert_bounds_close(found, case.bounds(method, prune=False), TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(spec=False, **FEW))
@settings(max_examples=10)
def test_every_layer_of_random_chains(launcher: ModuleType, method: str, case: Case) -> None:
    assume(not near_kink(case, method))
    found, wanted = case.hidden(method, "cuda", torch.float32), case.hidden(method)
    for name, bounds in found.items():
        assert_bounds_close(bounds, wanted[name], TOLERANCE[torch.float32])


@given(case=cases(**FEW))
@settings(max_examples=10)
def test_pruned_random_chains(launcher: ModuleType, case: Case) -> None:
    """The same pruning rule as the reference's, hence the same bounds."""
    assume(not near_kink(case, "CROWN"))
    found = case.bounds("CROWN", "cuda", torch.float64, prune=True)
    assert_bounds_close(found, case.bounds("CROWN", prune=True), TOLERANCE[torch.float64])


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("name", PATCH)
def test_patch_kernel(launcher: ModuleType, name: str, signs: int, hbox: bool) -> None:
    known = not hbox and name != "wide padding"
    given_ = problem(chain(*PATCH[name], None), known=known)
    agree(given_.run(launcher, signs, hbox, "patch"), given_.reference(signs, hbox), torch.float32)


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("rows", [None, 1, 9, 11])
@pytest.mark.parametrize("name", MARGINS)
def test_margins_kernel(launcher: ModuleType, name: str, rows: int | None, signs: int, hbox: bool) -> None:
    given_ = problem(chain(*MARGINS[name], 10), rows=rows)
    agree(given_.run(launcher, signs, hbox, "margins"), given_.reference(signs, hbox), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("rows", [None, 9, 40])
def test_general_kernel(launcher: ModuleType, rows: int | None, signs: int, hbox: bool, dtype: torch.dtype) -> None:
    layers = chain((2, 10, 9), [(3, 3, 1, 1), (9, 3, 2, 0), (5, 2, 1, 1)], 37)
    given_ = problem(layers, rows=rows, known=rows is None and not hbox)
    agree(given_.run(launcher, signs, hbox, "general", dtype), given_.reference(signs, hbox), dtype)


@pytest.mark.parametrize(
    ("layers", "rows", "dtype", "chosen"),
    [
        (chain(*PATCH["CNN3"], None), None, torch.float32, "patch"),
        (chain(*PATCH["CNN3 on CIFAR-10"], None), None, torch.float32, "patch"),
        (chain((1, 28, 28), [(16, 5, 2, 2), (16, 4, 2, 1)], None), None, torch.float32, "patch"),
        (chain(*MARGINS["CNN3"], 10), 9, torch.float32, "margins"),
        (chain(*MARGINS["CNN3 on CIFAR-10"], 10), 9, torch.float32, "margins"),
        (chain(*MARGINS["CNN3"], 10), 100, torch.float32, "deep"),
        (chain(*PATCH["CNN3"], None), None, torch.float64, "general"),
        (chain(*MARGINS["CNN3"], 10), 9, torch.float64, "general"),
        (chain((1, 28, 28), [(8, 7, 2, 2), (8, 4, 2, 1)], None), None, torch.float32, "general"),
        (chain((1, 200, 200), [(8, 5, 2, 2), (8, 4, 2, 1)], None), None, torch.float32, "general"),  # too wide
    ],
)
def test_selection(
    launcher: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[Geometry],
    rows: int | None,
    dtype: torch.dtype,
    chosen: str,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(launcher._CUDA, "run_pass", lambda *args: ran.append(args[3]))
    with using_precision("bf16x3"):
        problem(layers, members=1, samples=1, rows=rows).run(launcher, 2, False, "", dtype)
    assert ran == [chosen]


@pytest.mark.parametrize(("image", "convs"), PATCH.values(), ids=PATCH)
def test_general_serves_what_patch_serves(
    launcher: ModuleType, image: tuple[int, int, int], convs: list[tuple[int, int, int, int]]
) -> None:
    given_ = problem(chain(image, convs, None), members=1, samples=1, known=True)
    agree(given_.run(launcher, 2, False, "general"), given_.run(launcher, 2, False, "patch"), torch.float32)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("variant", "outputs", "rows"),
    [("patch", None, None), ("general", None, None), ("margins", 10, 9), ("general", 10, 9)],
)
def test_no_race_between_barriers(
    launcher: ModuleType, device: Emulation, variant: str, outputs: int | None, rows: int | None, known: bool
) -> None:
    """Threads may run in any order between two barriers: the bits do not depend on it."""
    given_ = problem(chain(*SMALL, outputs), rows=rows, known=known and rows is None)
    forwards = given_.run(launcher, 2, False, variant)
    device.set(order="backward")
    for one, other in zip(forwards, given_.run(launcher, 2, False, variant), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("variant", ["patch", "general"])
def test_rows_in_chunks(launcher: ModuleType, device: Emulation, variant: str) -> None:
    """A big device gets its rows in small chunks; how they are cut changes no bit."""
    given_ = problem(chain(*PATCH["CNN3"], None), members=1, samples=1, known=True)
    whole = given_.run(launcher, 2, False, variant)
    device.set(multiprocessors=132)
    for one, other in zip(whole, given_.run(launcher, 2, False, variant), strict=True):
        assert_close(one, other.double(), 1e-6)


def test_less_shared_memory_falls_back(launcher: ModuleType, device: Emulation) -> None:
    given_ = problem(chain(*PATCH["CNN3"], None), members=1, samples=1)
    device.set(shared_limit=40 << 10)
    with pytest.raises(ValueError, match="patch kernel does not serve"):
        given_.run(launcher, 2, False, "patch")
    agree(given_.run(launcher, 2, False, ""), given_.reference(2, False), torch.float32)


@pytest.mark.parametrize(
    ("variant", "outputs", "rows"), [("patch", None, None), ("margins", 10, 9), ("general", 10, 9)]
)
def test_nothing_is_written_beside_the_results(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, variant: str, outputs: int | None, rows: int | None
) -> None:
    """Results and workspace lie between guards, and no result is left unwritten."""
    guard, made = 64, []

    def guarded(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        size = math.prod(shape)
        buffer = torch.full((size + 2 * guard,), 77, dtype=dtype or like.dtype)
        if dtype is None:
            buffer[guard : guard + size] = math.nan
        made.append(buffer)
        return buffer[guard : guard + size].view(shape)

    monkeypatch.setattr(launcher.cuda, "empty", guarded)
    found = problem(chain(*SMALL, outputs), rows=rows, known=rows is None).run(launcher, 2, False, variant)
    assert all(bound.isfinite().all() for bound in found)
    for buffer in made:
        assert (buffer[:guard] == 77).all()
        assert (buffer[-guard:] == 77).all()


@pytest.mark.parametrize("variant", ["patch", "general"])
def test_a_nan_is_not_lost(launcher: ModuleType, variant: str) -> None:
    given_ = problem(chain(*SMALL, None), members=1, samples=1)
    given_.weights[0][0, 0, 0, 2, 2] = math.nan
    lower, upper = given_.run(launcher, 2, False, variant)
    wanted = given_.reference(2, False)
    assert torch.equal(lower.isnan(), wanted[0].isnan())
    assert torch.equal(upper.isnan(), wanted[1].isnan())
    assert lower.isnan().any()


def test_layouts_of_arguments(launcher: ModuleType) -> None:
    """Strided weights and bounds, a shared box or one a member, a broadcast specification."""
    layers = chain(*SMALL, 10)
    given_ = problem(layers, members=3, samples=4, rows=9)
    given_.C = given_.C[:1].expand(4, -1, -1)
    wanted = given_.reference(2, False)
    flat = torch.cat([w.flatten(1) for w in given_.weights], dim=1).float()
    pieces = flat.split([w[0].numel() for w in given_.weights], dim=1)
    given_.weights = [piece.unflatten(1, w.shape[1:]) for piece, w in zip(pieces, given_.weights, strict=True)]
    given_.lowers = [torch.stack([low, low], dim=3)[..., 0] for low in given_.lowers]
    given_.x_L, given_.x_U = (t.expand(3, -1, -1) for t in (given_.x_L, given_.x_U))
    agree(given_.run(launcher, 2, False, "margins"), wanted, torch.float32)
    given_.x_L, given_.x_U = given_.x_L.clone(), given_.x_U.mT.contiguous().mT
    agree(given_.run(launcher, 2, False, "general"), wanted, torch.float32)


def test_a_deep_chain_runs_by_the_reference(launcher: ModuleType) -> None:
    layers = chain((1, 4, 4), [(1, 1, 1, 0)] * 30, None)
    given_ = problem(layers, members=1, samples=1)
    arguments = (given_.x_L, given_.x_U, given_.weights, given_.biases, given_.lowers, given_.uppers)
    none = [given_.x_L.new_empty(0)] * (len(layers) - 1)
    rest = (None, None, None, encode(layers), [0.0] * len(layers), "adaptive", True)
    found = ops.crown_pass(*arguments, none, *rest, backend="cuda")
    agree(list(found), given_.reference(2, False), torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("relu", "leak"), [(False, 0.0), (True, 0.0), (True, 0.3)])
@pytest.mark.parametrize("samples", [1, 3, 33])
@pytest.mark.parametrize("name", ["conv", "many channels", "linear"])
def test_ibp_affine(launcher: ModuleType, name: str, samples: int, relu: bool, leak: float, dtype: torch.dtype) -> None:
    layer = {
        "conv": chain((3, 9, 7), [(11, 3, 2, 1)], None)[0],
        "many channels": chain((300, 4, 4), [(3, 3, 1, 1)], None)[0],  # weights do not fit shared memory at once
        "linear": Geometry(37, 1, 1, 45, 1, 1, 1, 1, 1, 1, 0, 0, 0),
    }[name]
    center = torch.randn(2, samples, layer.in_features, dtype=dtype)
    box = center - 0.1, center + 0.3
    weight, bias = torch.randn(2, *layer.weight_shape, dtype=dtype), torch.randn(2, layer.out_channels, dtype=dtype)
    found = ops.ibp_affine(*box, weight, bias, list(layer), relu, leak, backend="cuda")
    exact = [t.double() for t in (*box, weight, bias)]
    wanted = ops.ibp_affine.reference(*exact, list(layer), relu, leak)
    assert_bounds_close(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise(launcher: ModuleType, dtype: torch.dtype) -> None:
    """Of bounds that are none comes NaN, of all others what the reference says."""
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0], dtype=dtype)
    lower = torch.cat([special.repeat_interleave(7), torch.randn(1000, dtype=dtype)])
    upper = torch.cat([special.repeat(7), lower[49:] + torch.rand(1000, dtype=dtype)])
    box = torch.randn(2, lower.numel(), dtype=dtype)
    finite = lower.isfinite() & upper.isfinite()
    exact = {"rtol": 1e-6, "atol": 0}
    cases = [(ops.hbox_relu, (*box, lower, upper, k)) for k in (0.0, 0.3)]
    for op, given_ in cases:
        for found, wanted in zip(op(*given_, backend="cuda"), op.reference(*given_), strict=True):
            torch.testing.assert_close(found[finite], wanted[finite], **exact)
            assert found[~finite].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_robust_cross_entropy(launcher: ModuleType, dtype: torch.dtype) -> None:
    margins = 50 * torch.randn(3, 300, 9, dtype=dtype)
    margins[0, 0] = 1e4
    margins[1, 0, 3] = -1e4
    found = ops.robust_cross_entropy(margins, backend="cuda")
    torch.testing.assert_close(found, ops.robust_cross_entropy.reference(margins), rtol=1e-5, atol=0)
    for value in (math.inf, -math.inf, math.nan):
        margins[2, 5, 0] = value
        found, wanted = ops.robust_cross_entropy(margins, backend="cuda"), ops.robust_cross_entropy.reference(margins)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
def test_cnn3(launcher: ModuleType, method: str) -> None:
    """The network of the paper, through the public interface."""
    net = models.build("cnn3")
    bounded = glsk.BoundedModule(net, (1, 28, 28))
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    params = flat + 0.02 * torch.randn(2, flat.numel())
    x, C = torch.rand(2, 1, 28, 28), glsk.margins(torch.tensor([3, 9]))
    options = {"eps": 0.1, "clip": (0.0, 1.0), "method": method}
    found = bounded.compute_bounds(x, C=C, params=params, backend="cuda", **options)
    wanted = bounded.compute_bounds(x.double(), C=C.double(), params=params.double(), backend="reference", **options)
    assert_bounds_close(found, wanted, TOLERANCE[torch.float32])


@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_reads_nothing_back(launcher: ModuleType, method: str) -> None:
    """What a CUDA graph captures and a training step queues: margins, bounds and loss."""
    bounded, y = glsk.BoundedModule(models.build("cnn3", (1, 12, 12)), (1, 12, 12)), torch.tensor([3, 9])
    x, params = torch.rand(2, 1, 12, 12), 0.1 * torch.randn(2, bounded.num_parameters)
    options = {"eps": 0.1, "clip": (0.0, 1.0), "method": method, "backend": "cuda", "check_finite": False}
    with no_waits("cpu"):
        C = glsk.margins(y, check_labels=False)
        lower, _ = bounded.compute_bounds(x, C=C, params=params, bound_upper=False, **options)
        glsk.robust_cross_entropy(lower, backend="cuda")
    with no_waits("cpu"), pytest.raises(WaitError):
        bounded.compute_bounds(x, params=params, **{**options, "check_finite": True})


def test_tensors_of_one_call_must_agree(launcher: ModuleType) -> None:
    given_ = problem(chain(*SMALL, None))
    arguments = [given_.x_L.float(), given_.x_U.float(), given_.weights, given_.biases, given_.lowers, given_.uppers]
    none = [given_.x_L.new_empty(0)] * (len(given_.layers) - 1)
    rest = (none, None, None, None, encode(given_.layers), [0.0] * len(given_.layers), "adaptive", True)
    with pytest.raises(ValueError, match="must agree"):
        ops.crown_pass(*arguments, *rest, backend="cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [(1, 1), (2, 3), (4, 5)])
@pytest.mark.parametrize("rows", [None, 9])
def test_the_general_kernels_workspace_is_counted(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, pairs: tuple[int, int], rows: int | None
) -> None:
    image, convs = SMALL
    layers = tuple(chain(image, [*convs, (4, 3, 1, 1)], outputs=None if rows is None else 6))
    counted = backends.pass_workspace("cuda", layers, rows, torch.device("cpu"), dtype)
    assert not counted.scalable
    allocated = []
    empty = launcher.cuda.empty

    def record(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        allocated.extend(shape if dtype == torch.uint8 else ())
        return empty(like, *shape, dtype=dtype)

    monkeypatch.setattr(launcher.cuda, "empty", record)
    case = problem(list(layers), members=pairs[0], samples=pairs[1], rows=rows)
    for signs, hbox in SIDES:
        case.run(launcher, signs, hbox, "general", dtype)
    most = counted.scratch(pairs[0] * pairs[1])
    assert len(allocated) == len(SIDES)
    assert max(allocated) <= most
    assert 2 * max(allocated) >= most or counted.programs > 6


def test_a_kernel_on_chip_needs_no_workspace(launcher: ModuleType) -> None:
    geometry = glsk.BoundedModule(models.build("cnn3"), (1, 28, 28)).chain.geometry
    cpu = torch.device("cpu")
    assert backends.pass_workspace("cuda", geometry[:2], None, cpu, torch.float32).scratch(1000) == 0
    assert backends.pass_workspace("cuda", geometry[:2], None, cpu, torch.float64).scratch(1000) > 0
    assert backends.pass_workspace("cuda", geometry, 9, cpu, torch.float32).scratch(1000) == 0


def test_a_limit_below_the_general_kernels_workspace_is_refused(launcher: ModuleType) -> None:
    bounded = glsk.BoundedModule(models.build("cnn5"), (1, 28, 28))
    with pytest.raises(ValueError, match=r"too few for one sample of one member on the cuda backend.* at least"):
        bounded.compute_bounds(torch.rand(1, 1, 28, 28), eps=0.1, backend="cuda", memory_limit=1 << 17)


def test_the_backend_says_which_ops_it_serves(launcher: ModuleType) -> None:
    assert backends._BACKENDS["cuda"].ops == {op.name for op in ops.ALL if op.implemented("cuda")}
    assert backends._BACKENDS["cuda"].gradients == {op.name for op in ops.ALL if op.has_backward("cuda")}
