"""The deep kernel with one FP16 product, emulated: its error, and that no scale of the weights makes it wrong."""

import ctypes
import math
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from glsk.geometry import Geometry
from glsk.precision import accurate, using_precision
from tests.cuda.emulation import Emulation
from tests.cuda.passes import Problem, chain, problem
from tests.cuda.test_deep import CHAINS, CNN5, deep, drawn_chains
from tests.cuda.test_emulated import SIDES
from tests.support import assert_close

ROUNDING = 2.0**-10
"""Of a product: each operand's is 2^-11."""
SCALES = (1e-20, 1e-6, 1e6, 1e20)
SMALL = chain(*CHAINS["FC rows"])


@pytest.fixture(autouse=True)
def fp16() -> Iterator[None]:
    with using_precision("fp16"):
        yield


def is_right(given_: Problem, launcher: ModuleType, signs: int = 2, hbox: bool = False) -> None:
    found, wanted = deep(given_, launcher, signs, hbox), given_.reference(signs, hbox)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, ROUNDING)


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("name", CHAINS)
def test_chains(launcher: ModuleType, name: str, signs: int, hbox: bool) -> None:
    is_right(problem(chain(*CHAINS[name]), known=not hbox and name != "FC rows"), launcher, signs, hbox)


@given(layers=drawn_chains(), side=st.sampled_from(SIDES), known=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_drawn_chains(
    launcher: ModuleType, layers: list[Geometry], side: tuple[int, bool], known: bool, seed: int
) -> None:
    assume(sum(layer.out_features for layer in layers) < 3000)  # the emulation is slow
    torch.manual_seed(seed)
    given_ = problem(layers, members=1, samples=2, known=known and not side[1])
    for one, other in zip(deep(given_, launcher, *side), given_.reference(*side), strict=True):
        assert_close(one, other, 2 * ROUNDING)  # of few terms, or of some that cancel, more of the error is left


@pytest.mark.parametrize("outputs", [10, None])
def test_cnn5(launcher: ModuleType, outputs: int | None) -> None:
    image, convs = CNN5
    convs = convs if outputs else [*convs[:2], (4, 4, 2, 1)]
    is_right(problem(chain(image, convs, outputs), members=1, samples=1), launcher)


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize("rows", [1, 20])
def test_rows_of_a_specification(launcher: ModuleType, rows: int, signs: int, hbox: bool) -> None:
    is_right(problem(SMALL, rows=rows), launcher, signs, hbox)


def test_members_have_their_own_scales(launcher: ModuleType, device: Emulation) -> None:
    given_ = problem(SMALL, members=3, samples=2, known=True)
    for weight in given_.weights:
        weight *= torch.tensor([1e-3, 1.0, 1e3]).view(-1, *[1] * (weight.dim() - 1))
    device.set(multiprocessors=3)
    found = deep(given_, launcher)
    for one, other in zip(found, given_.reference(2, False), strict=True):
        for p in range(3):
            assert_close(one[p], other[p], ROUNDING)
    for order, size in (("backward", 3), ("forward", 100), ("forward", 1)):
        device.set(order=order, multiprocessors=size)
        for one, other in zip(found, deep(given_, launcher), strict=True):
            assert torch.equal(one, other)


def test_less_shared_memory_changes_no_bit(launcher: ModuleType, device: Emulation) -> None:
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    whole = deep(given_, launcher)
    for limit in (100, 60, 45):
        device.set(shared_limit=limit << 10)
        for one, other in zip(whole, deep(given_, launcher), strict=True):
            assert torch.equal(one, other)


def test_the_error_has_no_direction(launcher: ModuleType) -> None:
    """Numbers cut off would make every radius smaller, by about 2^-12 for each rounding of coefficients or weights."""
    torch.manual_seed(0)
    given_ = problem(chain((1, 12, 12), [(16, 5, 2, 2), (16, 4, 2, 1)], 150), members=1, samples=1)
    (found,), (wanted,) = deep(given_, launcher, 1, True), given_.reference(1, True)
    error = (found.double() - wanted) / wanted
    assert error.abs().max() > 2.0**-16  # it is there
    assert abs(error.mean()) < 2.0**-12 / 8


@pytest.mark.parametrize("factor", SCALES)
@pytest.mark.parametrize("layer", range(4))
def test_weights_of_any_scale(launcher: ModuleType, layer: int, factor: float) -> None:
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    given_.weights[layer] = (given_.weights[layer] * factor).float().double()
    given_.biases[layer] = (given_.biases[layer] * factor).float().double()
    is_right(given_, launcher)


@pytest.mark.parametrize("factor", SCALES)
@pytest.mark.parametrize("what", ["biases", "bounds", "box"])
def test_constants_of_any_scale(launcher: ModuleType, what: str, factor: float) -> None:
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    if what == "box":
        given_.x_L, given_.x_U = given_.x_L * factor, given_.x_U * factor
    else:
        for values in [given_.biases] if what == "biases" else [given_.lowers, given_.uppers]:
            values[:] = [value * factor for value in values]
    is_right(given_, launcher)


def test_a_slope_just_above_a_half(launcher: ModuleType) -> None:
    """Rounded it is a half, where the lower line's slope is 0: here it is still 1."""
    given_ = problem(SMALL, members=1, samples=1)
    given_.lowers[:] = [torch.full_like(bound, -0.4999) for bound in given_.lowers]
    given_.uppers[:] = [torch.full_like(bound, 0.5001) for bound in given_.uppers]
    is_right(given_, launcher)


@pytest.mark.parametrize("spec", [False, True])
def test_a_row_has_a_scale_of_its_own(launcher: ModuleType, spec: bool) -> None:
    """A row times 2^n has its bounds times 2^n, to the bit, whatever the other rows are."""
    given_ = problem(SMALL, members=1, rows=11 if spec else None)
    factors = 2.0 ** torch.linspace(-66, 66, 11).round().double()
    before = deep(given_, launcher)
    if spec:
        given_.C = given_.C * factors[:, None]
    else:
        given_.weights[-1] = given_.weights[-1] * factors.view(-1, *[1] * (given_.weights[-1].dim() - 2))
        given_.biases[-1] = given_.biases[-1] * factors
    for one, other in zip(before, deep(given_, launcher), strict=True):
        assert torch.equal((one.double() * factors).float(), other)


def test_what_the_next_layer_takes_back_changes_no_bit(launcher: ModuleType) -> None:
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    before = deep(given_, launcher)
    for below, above, n in ((0, 1, 50), (1, 2, -60), (2, 3, 30)):
        given_.weights[below] *= 2.0**n
        given_.weights[above] *= 2.0**-n
        for values in (given_.biases, given_.lowers, given_.uppers):
            values[below] *= 2.0**n
    for one, other in zip(before, deep(given_, launcher), strict=True):
        assert torch.equal(one, other)


def test_the_largest_coefficients_there_can_be(launcher: ModuleType) -> None:
    """All weights the same and all units active: coefficients are what bounds their scale."""
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    for weight, size in zip(given_.weights, (0.9, 1.1, 1.9999, 1.9999), strict=True):
        weight[:] = size
    given_.lowers[:] = [torch.ones_like(bound) for bound in given_.lowers]
    given_.uppers[:] = [torch.full_like(bound, 2.0) for bound in given_.uppers]
    is_right(given_, launcher)


@pytest.mark.parametrize(
    "factors", [(1, 1e30, 1e30, 1), (1, 1e-30, 1e-30, 1), (1, 1e38, 1, 1e38), (1e38, 1e-38, 1e38, 1)]
)
def test_beyond_every_scale_a_bound_is_right_or_none(launcher: ModuleType, factors: tuple[float, ...]) -> None:
    given_ = problem(chain(*CHAINS["CNN5, smaller"]), members=1, samples=1)
    given_.weights[:] = [(w * f).float().double() for w, f in zip(given_.weights, factors, strict=True)]
    for one, other in zip(deep(given_, launcher), given_.reference(2, False), strict=True):
        right = (one.double() - other).abs() <= ROUNDING * other.abs().max()
        assert (right | ~one.isfinite()).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("layer", "affected"), [(0, slice(None)), (1, slice(None)), (2, slice(1))])
def test_what_is_no_number_is_not_lost(launcher: ModuleType, layer: int, affected: slice, value: float) -> None:
    given_ = problem(SMALL, members=1, samples=1)
    given_.weights[layer].view(-1)[7] = value
    for found in deep(given_, launcher):
        assert found[..., affected].isnan().all()


def test_the_emulated_conversion_is_that_of_the_hardware(device: Emulation) -> None:
    library = ctypes.CDLL(str(device.path))
    library.glsk_emulate_to_fp16.argtypes, library.glsk_emulate_from_fp16.restype = [ctypes.c_double], ctypes.c_float
    values = torch.cat([torch.randn(500) * 2.0 ** torch.randint(-30, 20, (500,)), ties(), -ties()])
    made = torch.tensor([library.glsk_emulate_to_fp16(v) for v in values.tolist()]).short().view(torch.float16)
    assert torch.equal(made, values.half())
    back = [library.glsk_emulate_from_fp16(int(bits) & 0xFFFF) for bits in made.view(torch.int16)]
    assert torch.equal(torch.tensor(back), made.float())


def ties() -> Tensor:
    """Half way between two numbers of FP16, where it ends at either side, and beyond."""
    ends = torch.tensor([0.0, 2.0**-25, 3 * 2.0**-25, 2.0**-14 - 2.0**-25, 65504.0, 65519.9, 65520.0, 1e9, math.inf])
    return torch.cat([1 + torch.arange(1, 64, 2) * 2.0**-11, ends])


@pytest.mark.parametrize("limit", [163, 227])  # KiB a thread block, sm_80 and sm_90
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32)])
def test_it_serves_in_training_and_never_certifies(
    launcher: ModuleType, device: Emulation, monkeypatch: pytest.MonkeyPatch, image: tuple[int, int, int], limit: int
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(launcher._CUDA, "run_pass", lambda *args: ran.append(args[3]))
    device.set(shared_limit=limit << 10)
    given_ = problem(chain(image, CNN5[1], 512), members=1, samples=1)
    given_.run(launcher, 2, False, "")
    with accurate():
        given_.run(launcher, 2, False, "")
    assert ran == ["deep", "general"]
