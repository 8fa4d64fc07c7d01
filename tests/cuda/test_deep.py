"""The deep kernel, emulated, against the float64 reference: every kind of row, shape and layout it serves."""

import importlib
import math
from types import ModuleType

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.cost.deep import layout
from glsk import backends
from glsk.geometry import Geometry, linear
from glsk.precision import using_precision
from tests.cuda.emulation import Emulation
from tests.cuda.passes import Problem, chain, conv, problem
from tests.cuda.test_emulated import SIDES, agree

# image, convolutions (out, kernel, stride, pad), outputs of a linear layer or None
CHAINS = {
    "FC rows": ((1, 12, 12), [(16, 5, 2, 2), (16, 4, 2, 1)], 11),
    "CNN5, smaller": ((1, 16, 16), [(16, 5, 2, 2), (16, 4, 2, 1), (32, 4, 2, 1)], 19),
    "rows of a convolution": ((1, 20, 16), [(16, 5, 2, 2), (16, 4, 2, 1), (11, 4, 2, 1)], None),
    "rows of any convolution": ((1, 13, 14), [(9, 5, 2, 2), (12, 4, 2, 1), (5, 3, 1, 2)], None),
    "three image channels": ((3, 16, 12), [(16, 5, 2, 2), (16, 4, 2, 1), (20, 4, 2, 1)], 7),
    "channels of every number": ((2, 13, 17), [(3, 5, 2, 2), (21, 4, 2, 1), (35, 4, 2, 1)], 5),
    "wide padding": ((1, 9, 11), [(6, 5, 2, 4), (2, 4, 2, 3)], 9),
    "no padding": ((1, 22, 19), [(5, 5, 2, 0), (18, 4, 2, 0)], 6),
    "odd padding": ((1, 15, 16), [(5, 5, 2, 1), (7, 4, 2, 2)], 6),
    "small kernels": ((3, 15, 17), [(7, 3, 2, 1), (20, 3, 2, 0), (5, 2, 2, 1)], 5),
    "pixels nobody reads": ((1, 20, 21), [(4, 1, 2, 0), (6, 1, 2, 0)], 5),
    "rows of one pixel": ((1, 18, 18), [(4, 5, 2, 2), (6, 4, 2, 1), (5, 1, 3, 0)], None),
    "outputs that read padding alone": ((1, 12, 11), [(5, 1, 2, 3), (17, 2, 2, 3), (4, 1, 2, 2)], 6),
    "rows that read padding alone": ((1, 15, 13), [(3, 5, 2, 2), (4, 3, 2, 2), (5, 1, 3, 2)], None),
    "four convolutions": ((1, 34, 30), [(4, 5, 2, 2), (6, 4, 2, 1), (9, 4, 2, 1), (5, 4, 2, 1)], 6),
}
CNN5 = (1, 28, 28), [(16, 5, 2, 2), (16, 4, 2, 1), (32, 4, 2, 1)]


def deep(given_: Problem, launcher: ModuleType, signs: int = 2, hbox: bool = False) -> list[torch.Tensor]:
    return given_.run(launcher, signs, hbox, "deep")


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("name", CHAINS)
def test_chains(launcher: ModuleType, name: str, signs: int, hbox: bool) -> None:
    given_ = problem(chain(*CHAINS[name]), known=not hbox and name != "FC rows")
    agree(deep(given_, launcher, signs, hbox), given_.reference(signs, hbox), torch.float32)


@st.composite
def drawn_chains(draw: st.DrawFn) -> list[Geometry]:
    """Any two to four convolutions that the kernel serves, and a last layer above them."""
    layers: list[Geometry] = []
    image = draw(st.integers(1, 3)), draw(st.integers(6, 24)), draw(st.integers(6, 24))
    for k in range(draw(st.integers(2, 4))):
        kernel = [draw(st.integers(1, 4 + (k == 0))) for _ in "yx"]
        pad = [draw(st.integers(0, 3)) for _ in "yx"]
        size = [(n + 2 * p - e) // 2 + 1 for n, p, e in zip(image[1:], pad, kernel, strict=True)]
        assume(min(size) >= 1)
        out = draw(st.integers(1, 16)) if k == 0 else draw(st.sampled_from([1, 5, 16, 17, 33]))
        layers.append(Geometry(*image, out, *size, *kernel, 2, 2, *pad, draw(st.integers(0, 1))))
        image = (out, *size)
    if draw(st.booleans()):
        return [*layers, linear(layers[-1].out_features, draw(st.integers(1, 20)), False)]
    kernel, pad = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    assume(min(image[1:]) + 2 * pad >= kernel)
    return [*layers, conv(image, draw(st.integers(1, 9)), kernel, draw(st.integers(1, 3)), pad, False)]


@given(layers=drawn_chains(), side=st.sampled_from(SIDES), known=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_drawn_chains(
    launcher: ModuleType, layers: list[Geometry], side: tuple[int, bool], known: bool, seed: int
) -> None:
    assume(sum(layer.out_features for layer in layers) < 3000)  # the emulation is slow
    torch.manual_seed(seed)
    given_ = problem(layers, members=1, samples=2, known=known and not side[1])
    agree(deep(given_, launcher, *side), given_.reference(*side), torch.float32)


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("outputs", [10, None])
def test_cnn5(launcher: ModuleType, outputs: int | None, signs: int, hbox: bool) -> None:
    """The shapes of the paper's network: of its FC layer ten rows, of its third convolution four channels."""
    image, convs = CNN5
    convs = convs if outputs else [*convs[:2], (4, 4, 2, 1)]
    given_ = problem(chain(image, convs, outputs), members=1, samples=1)
    agree(deep(given_, launcher, signs, hbox), given_.reference(signs, hbox), torch.float32)


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("rows", [1, 9, 20])
def test_rows_of_a_specification(launcher: ModuleType, rows: int, signs: int, hbox: bool) -> None:
    given_ = problem(chain(*CHAINS["FC rows"]), rows=rows)
    agree(deep(given_, launcher, signs, hbox), given_.reference(signs, hbox), torch.float32)


@pytest.mark.parametrize(("members", "samples"), [(1, 1), (3, 2), (2, 5)])
def test_members_and_samples(launcher: ModuleType, device: Emulation, members: int, samples: int) -> None:
    """However many thread blocks share the work, and whether or not a member is new to a block."""
    given_ = problem(chain(*CHAINS["FC rows"]), members=members, samples=samples, known=True)
    device.set(multiprocessors=3)
    found = deep(given_, launcher)
    agree(found, given_.reference(2, False), torch.float32)
    device.set(multiprocessors=100)
    for one, other in zip(found, deep(given_, launcher), strict=True):
        assert torch.equal(one, other)


def test_rows_in_chunks(launcher: ModuleType, device: Emulation) -> None:
    """A big device gets the rows of one sample in several jobs."""
    given_ = problem(chain((1, 8, 8), [(4, 5, 2, 2), (6, 4, 2, 1)], 150), members=1, samples=1, known=True)
    device.set(multiprocessors=1)
    whole = deep(given_, launcher)
    agree(whole, given_.reference(2, False), torch.float32)
    device.set(multiprocessors=132)
    for one, other in zip(whole, deep(given_, launcher), strict=True):
        assert torch.equal(one, other)


def test_a_box_and_bounds_of_each_member(launcher: ModuleType) -> None:
    given_ = problem(chain(*CHAINS["three image channels"]), members=2, samples=2)
    given_.x_L = given_.x_L - torch.rand(2, 2, given_.x_L.shape[2])
    given_.x_U = given_.x_U.expand(2, -1, -1)
    given_.weights = [torch.stack([w, w], dim=1)[:, 0] for w in given_.weights]
    given_.lowers = [torch.stack([low, low], dim=3)[..., 0] for low in given_.lowers]
    agree(deep(given_, launcher), given_.reference(2, False), torch.float32)


def test_one_relaxation_for_all(launcher: ModuleType) -> None:
    """Bounds that members and samples share, without copies."""
    given_ = problem(chain(*CHAINS["FC rows"]), members=2, samples=3)
    given_.lowers = [low[:1, :1].expand_as(low) for low in given_.lowers]
    given_.uppers = [up[:1, :1].expand_as(up) for up in given_.uppers]
    agree(deep(given_, launcher), given_.reference(2, False), torch.float32)


def test_no_relu_between(launcher: ModuleType) -> None:
    layers = chain(*CHAINS["FC rows"])
    layers[0] = layers[0]._replace(relu=0)
    given_ = problem(layers)
    agree(deep(given_, launcher), given_.reference(2, False), torch.float32)


@pytest.mark.parametrize("known", ["none left", "one left", "all left"])
@pytest.mark.parametrize("name", ["CNN5, smaller", "rows of a convolution"])
def test_pruning(launcher: ModuleType, name: str, known: str) -> None:
    given_ = problem(chain(*CHAINS[name]), members=1, known=True)
    low, up = (torch.full_like(bound, 2.0 + i) for i, bound in enumerate(given_.known))
    if known == "one left":
        low[..., 3] = -1.0
    elif known == "all left":
        low = -up
    given_.known = low, up
    agree(deep(given_, launcher), given_.reference(2, False), torch.float32)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", ["CNN5, smaller", "rows of a convolution", "channels of every number"])
def test_no_race_between_barriers(launcher: ModuleType, device: Emulation, name: str, known: bool) -> None:
    given_ = problem(chain(*CHAINS[name]), known=known)
    forwards = deep(given_, launcher)
    device.set(order="backward")
    for one, other in zip(forwards, deep(given_, launcher), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["CNN5, smaller", "four convolutions", "FC rows"])
def test_less_shared_memory_changes_no_bit(launcher: ModuleType, device: Emulation, name: str) -> None:
    """Fewer warps, and the top level's coefficients in global memory; with too little the kernel is refused."""
    given_ = problem(chain(*CHAINS[name]), members=1, samples=1)
    whole = deep(given_, launcher)
    served = 0
    for limit in range(180, 0, -12):
        device.set(shared_limit=limit << 10)
        try:
            found = deep(given_, launcher)
        except ValueError:
            break
        served += 1
        for one, other in zip(whole, found, strict=True):
            assert torch.equal(one, other)
    assert served >= 4
    with pytest.raises(ValueError, match="deep kernel does not serve"):
        deep(given_, launcher)


def test_nothing_is_written_beside_the_results(launcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, made = 64, []

    def guarded(like: torch.Tensor, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        size = math.prod(shape)
        buffer = torch.full((size + 2 * guard,), 255 if dtype else math.nan, dtype=dtype or like.dtype)
        buffer[:guard] = buffer[-guard:] = 77
        made.append(buffer)
        return buffer[guard : guard + size].view(shape)

    monkeypatch.setattr(launcher.cuda, "empty", guarded)
    for name in ("CNN5, smaller", "rows of a convolution"):
        given_ = problem(chain(*CHAINS[name]), known=True)
        agree(deep(given_, launcher), given_.reference(2, False), torch.float32)
    for buffer in made:
        assert (buffer[:guard] == 77).all()
        assert (buffer[-guard:] == 77).all()


@pytest.mark.parametrize(("layer", "affected"), [(0, slice(None)), (1, slice(None)), (2, slice(1))])
def test_a_nan_is_not_lost(launcher: ModuleType, layer: int, affected: slice) -> None:
    given_ = problem(chain(*CHAINS["FC rows"]), members=1, samples=1)
    given_.weights[layer].view(-1)[7] = math.nan
    for found in deep(given_, launcher):
        assert found[..., affected].isnan().all()


@pytest.mark.parametrize("limit", [163, 227])  # KiB a thread block, sm_80 and sm_90
@pytest.mark.parametrize(
    ("layers", "rows", "dtype", "chosen"),
    [
        (chain(*CNN5, 512), None, torch.float32, "deep"),
        (chain(*CNN5, None), None, torch.float32, "deep"),
        (chain((3, 32, 32), CNN5[1], 512), None, torch.float32, {163: "general", 227: "deep"}),  # two warps, or four
        (chain((3, 32, 32), CNN5[1], None), None, torch.float32, "deep"),
        (chain(*CNN5, 512), None, torch.float64, "general"),
        (chain(*CNN5, 512), 9, torch.float32, "general"),  # too few rows
        (chain((1, 28, 28), CNN5[1][:2], None), None, torch.float32, "patch"),
        (chain((1, 28, 28), [(16, 5, 2, 2), (16, 4, 1, 1)], 512), None, torch.float32, "general"),  # stride 1
        (chain((1, 28, 28), [(17, 5, 2, 2), (16, 4, 2, 1)], 512), None, torch.float32, "general"),
        (chain((4, 28, 28), [(16, 5, 2, 2), (16, 4, 2, 1)], 512), None, torch.float32, "general"),
        (chain((1, 28, 28), [(16, 7, 2, 2), (16, 4, 2, 1)], 512), None, torch.float32, "general"),
        (chain((1, 240, 240), CNN5[1], None), None, torch.float32, "general"),  # too wide
    ],
)
def test_selection(
    launcher: ModuleType,
    device: Emulation,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    layers: list[Geometry],
    rows: int | None,
    dtype: torch.dtype,
    chosen: str | dict[int, str],
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(launcher._CUDA, "run_pass", lambda *args: ran.append(args[3]))
    device.set(shared_limit=limit << 10)
    with using_precision("bf16x3"):
        problem(layers, members=1, samples=1, rows=rows).run(launcher, 2, False, "", dtype)
    assert ran == [chosen if isinstance(chosen, str) else chosen[limit]]


@pytest.mark.parametrize(
    ("chosen", "expected"), [("ieee", "general"), ("tf32x3", "general"), ("bf16x3", "deep"), ("fp16", "deep")]
)
def test_it_serves_where_coarser_products_are_allowed(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, chosen: str, expected: str
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(launcher._CUDA, "run_pass", lambda *args: ran.append(args[3]))
    with using_precision(chosen):
        problem(chain(*CNN5, 512), members=1, samples=1).run(launcher, 2, False, "")
    assert ran == [expected]


def test_its_workspace_is_counted(launcher: ModuleType, device: Emulation) -> None:
    device.set(shared_limit=227 << 10)
    layers = tuple(chain(*CNN5, 512))
    for chosen in ("bf16x3", "fp16", "tf32x3"):
        with using_precision(chosen):
            counted = backends.pass_workspace("cuda", layers, None, torch.device("cpu"), torch.float32)
            counting = importlib.import_module("glsk.backends.cuda_workspace")
            wanted = launcher._CUDA.deep_workspace(0, counting.of_shape(layers, 512, False, torch.float32, 1 << 30))
            assert wanted > 0
            assert (counted.scratch(1) == wanted) == (chosen != "tf32x3")


@pytest.mark.parametrize(("precision", "parts"), [("bf16x3", 3), ("fp16", 1)])
@pytest.mark.parametrize("limit", [163, 227])
@pytest.mark.parametrize("outputs", [10, None])
def test_the_cost_model_knows_the_layout(
    launcher: ModuleType,
    device: Emulation,
    monkeypatch: pytest.MonkeyPatch,
    outputs: int | None,
    limit: int,
    precision: str,
    parts: int,
) -> None:
    """The kernel asks for the memory it says, given as much shared memory as it says and not a byte less."""
    made: list[int] = []
    empty = launcher.cuda.empty

    def recorded(like: torch.Tensor, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        made.extend(shape if dtype else ())
        return empty(like, *shape, dtype=dtype)

    monkeypatch.setattr(launcher.cuda, "empty", recorded)
    layers = chain(CNN5[0], CNN5[1] if outputs else [*CNN5[1][:2], (1, 4, 2, 1)], outputs)
    given_ = problem(layers, members=1, samples=1)
    where = layout(layers, parts, limit << 10)
    for change in (0, -1):
        device.set(shared_limit=where.shared + change, multiprocessors=1)
        with using_precision(precision):
            deep(given_, launcher)
    assert made[0] == where.tables + where.warps * where.spill
    if where.spilled:
        assert made[1] != made[0]
