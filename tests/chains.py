"""Random chains, populations, boxes and specifications for property-based tests, and how to evaluate them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import glsk
from tests.support import scale

CHANNELS = (1, 2, 3, 5, 9, 17)
MEMBERS = (1, 2, 3)
AFFINE = nn.Conv2d | nn.Linear | nn.AvgPool2d
SAMPLES = (1, 2, 3, 15, 17, 33)  # around the width of a SIMD register too


@dataclass(frozen=True)
class Case:
    """A network with a population of weights, boxes and a specification; every value is a float32 held as float64.

    ``params`` maps name -> [P, *shape]; ``x_L``, ``x_U`` are [B, *input_shape]; ``C`` is [B, S, K] or None.
    """

    net: nn.Sequential
    input_shape: tuple[int, ...]
    params: dict[str, Tensor]
    x_L: Tensor
    x_U: Tensor
    C: Tensor | None

    @property
    def members(self) -> int:
        return next(iter(self.params.values())).shape[0]

    def member(self, p: int) -> dict[str, Tensor]:
        return {name: value[p] for name, value in self.params.items()}

    def bounds(
        self, method: str, backend: str = "reference", dtype: torch.dtype = torch.float64, **options: object
    ) -> tuple[Tensor, Tensor]:
        """``compute_bounds`` of this case in a dtype."""
        return glsk.BoundedModule(self.net, self.input_shape).compute_bounds(
            x_L=self.x_L.to(dtype),
            x_U=self.x_U.to(dtype),
            C=None if self.C is None else self.C.to(dtype),
            params={name: value.to(dtype) for name, value in self.params.items()},
            method=method,
            backend=backend,
            **options,
        )

    def hidden(
        self, method: str, backend: str = "reference", dtype: torch.dtype = torch.float64, **options: object
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """``intermediate_bounds`` of this case in a dtype."""
        return glsk.BoundedModule(self.net, self.input_shape).intermediate_bounds(
            x_L=self.x_L.to(dtype),
            x_U=self.x_U.to(dtype),
            params={name: value.to(dtype) for name, value in self.params.items()},
            method=method,
            backend=backend,
            **options,
        )

    def values(self, p: int, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Member p at points x [N, *input_shape]: pre-activations [N, n] by affine layer, and outputs [N, K]."""
        return evaluate(self.net, self.member(p), x)


def evaluate(net: nn.Sequential, params: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs of every ReLU, keyed by the affine layer before it, and the outputs, both flat."""
    found, affine = {}, ""
    for name, module in net.named_children():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            found[affine] = x.flatten(1)
        elif isinstance(module, AFFINE):
            affine = name
        own = {key: params[f"{name}.{key}"] for key, _ in module.named_parameters()}
        x = torch.func.functional_call(module, own, (x,))
    return found, x.flatten(1)


def near_kink(case: Case, method: str, tolerance: float = 1e-5) -> bool:
    """Whether some relaxation jumps within rounding of these bounds, so that float32 may fairly pick the other side.

    CROWN's lower slope jumps at u = -l, HBox's ReLU at l = 0; a unit with a tiny interval does no harm. DeepZ's lines
    never jump.
    """
    if method in ("IBP", "DeepZ"):
        return False
    for lower, upper in case.hidden(method).values():
        close = tolerance * scale(lower, upper)
        distance = lower if method == "HBox" else lower + upper
        if ((distance.abs() < close) & (upper - lower > close)).any():
            return True
    return False


class _Builder:
    """Appends layers to a list while the shape is known."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...], max_units: int, leaks: tuple[float, ...]) -> None:
        self.draw, self.shape, self.max_units, self.leaks = draw, shape, max_units, leaks
        self.layers: list[nn.Module] = []

    def pick(self, *values: object) -> object:
        return self.draw(st.sampled_from(values))

    def conv(self) -> None:
        channels, height, width = self.shape
        padding = (self.pick(0, 1, 2), self.pick(0, 1, 2))
        stride = (self.pick(1, 2, 3), self.pick(1, 2, 3))
        kernel = tuple(
            self.draw(st.integers(1, min(4, n + 2 * p))) for n, p in zip((height, width), padding, strict=True)
        )
        out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip((height, width), padding, kernel, stride, strict=True)]
        fitting = [c for c in CHANNELS if c * out[0] * out[1] <= self.max_units] or [1]
        made = self.draw(st.sampled_from(fitting))
        self.layers.append(nn.Conv2d(channels, made, kernel, stride, padding, bias=self.draw(st.booleans())))
        self.shape = (made, *out)

    def pool(self) -> None:
        kernel = tuple(self.draw(st.integers(1, min(3, n))) for n in self.shape[1:])
        stride = (self.pick(1, 2), self.pick(1, 2))
        padding = tuple(self.draw(st.integers(0, k // 2)) for k in kernel)
        self.layers.append(nn.AvgPool2d(kernel, stride, padding))
        out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(self.shape[1:], padding, kernel, stride, strict=True)]
        self.shape = (self.shape[0], *out)

    def linear(self, outputs: int) -> None:
        self.layers.append(nn.Linear(self.shape[0], outputs, bias=self.draw(st.booleans())))
        self.shape = (outputs,)

    def flatten(self) -> None:
        if len(self.shape) == 3:
            self.layers.append(nn.Flatten())
            self.shape = (self.shape[0] * self.shape[1] * self.shape[2],)

    def after_affine(self, batch_norm: bool) -> None:
        if batch_norm and self.pick(False, False, True):
            kind = nn.BatchNorm2d if len(self.shape) == 3 else nn.BatchNorm1d
            self.layers.append(kind(self.shape[0], affine=self.draw(st.booleans())))
        if self.pick(True, True, True, False):  # now and then two affine layers in a row
            self.layers.append(nn.LeakyReLU(self.pick(*self.leaks)) if self.leaks else nn.ReLU())


@st.composite
def cases(
    draw: st.DrawFn,
    max_units: int = 90,
    samples: tuple[int, ...] = SAMPLES,
    spec: bool = True,
    leaks: tuple[float, ...] = (),
    pools: bool = False,
) -> Case:
    """A random case; hypothesis draws the structure, a seeded generator the numbers.

    ``leaks``: slopes below zero that LeakyReLUs have (none: ReLUs); ``pools``: an average pool after each convolution.
    """
    image = draw(st.booleans())
    if image:
        shape = (draw(st.sampled_from((1, 2, 3))), draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    else:
        shape = (draw(st.integers(1, 20)),)
    builder = _Builder(draw, shape, max_units, leaks)
    normalize = draw(st.sampled_from((False, False, True)))
    convs = draw(st.integers(1, 3)) if image else 0
    linears = draw(st.integers(0 if image else 1, 3))
    for i in range(convs):
        builder.conv()
        if linears or i < convs - 1:
            builder.after_affine(batch_norm=True)
        if pools:
            builder.pool()
    if linears:
        builder.flatten()
        for i in range(linears):
            builder.linear(draw(st.integers(1, 37)))
            if i < linears - 1:
                builder.after_affine(batch_norm=True)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if normalize:
        channels = shape[0] if image else 1
        mean, std = _uniform(generator, channels), 0.5 + _uniform(generator, channels)
        builder.layers.insert(0, glsk.Normalize(mean.tolist(), std.tolist()))
    net = nn.Sequential(*builder.layers).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.copy_(_normal(generator, *module.running_mean.shape))
            module.running_var.copy_(0.5 + _uniform(generator, *module.running_var.shape))
    outputs = 1
    for n in builder.shape:
        outputs *= n
    batch = draw(st.sampled_from(samples))
    x = _uniform(generator, batch, *shape)
    eps = draw(st.sampled_from((0.0, 0.02, 0.1, 0.5)))
    rows = draw(st.sampled_from((None, 1, 4, 9))) if spec else None
    return Case(
        net,
        shape,
        dict(_population(net, draw(st.sampled_from(MEMBERS)), generator)),
        _rounded(x - eps * _uniform(generator, *x.shape)),
        _rounded(x + eps * _uniform(generator, *x.shape)),
        None if rows is None else _normal(generator, batch, rows, outputs),
    )


def _population(net: nn.Module, members: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in net.named_parameters():
        value = _normal(generator, members, *parameter.shape)
        if parameter.dim() > 1:  # keep the values of every layer near 1
            value = _rounded(1.5 * value / parameter[0].numel() ** 0.5)
        yield name, value


def _rounded(value: Tensor) -> Tensor:
    return value.float().double()


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return _rounded(torch.randn(shape, generator=generator, dtype=torch.float64))


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return _rounded(torch.rand(shape, generator=generator, dtype=torch.float64))
