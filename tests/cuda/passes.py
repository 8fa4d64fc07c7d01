"""Arguments of the two pass ops for a chain of given shapes, and their results by reference and by a named kernel."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from glsk import ops
from glsk.geometry import Geometry, encode, linear


def conv(image: tuple[int, int, int], out: int, kernel: int, stride: int, pad: int, relu: bool = True) -> Geometry:
    """A convolution of square kernel on an image (C, H, W)."""
    channels, height, width = image
    size = [(n + 2 * pad - kernel) // stride + 1 for n in (height, width)]
    return Geometry(channels, height, width, out, *size, kernel, kernel, stride, stride, pad, pad, int(relu))


def chain(image: tuple[int, int, int], convs: list[tuple[int, int, int, int]], outputs: int | None) -> list[Geometry]:
    """Convolutions (out, kernel, stride, pad), then a linear layer if ``outputs`` is given."""
    layers: list[Geometry] = []
    for i, (out, kernel, stride, pad) in enumerate(convs):
        relu = i < len(convs) - 1 or outputs is not None
        layers.append(conv(image, out, kernel, stride, pad, relu))
        image = (out, layers[-1].out_height, layers[-1].out_width)
    if outputs is not None:
        layers.append(linear(layers[-1].out_features, outputs, False))
    return layers


@dataclass
class Problem:
    """One pass over a chain with plausible bounds of the inner layers, all in float64."""

    layers: list[Geometry]
    x_L: Tensor
    x_U: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    lowers: list[Tensor]
    uppers: list[Tensor]
    C: Tensor | None
    known: tuple[Tensor, Tensor] | None

    def _cast(self, dtype: torch.dtype) -> list:
        def cast(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(dtype)
            return [v.to(dtype) for v in value] if isinstance(value, list) else value

        return [cast(v) for v in (self.x_L, self.x_U, self.weights, self.biases, self.lowers, self.uppers, self.C)]

    def reference(self, signs: int, hbox: bool) -> list[Tensor]:
        """Lower and perhaps upper bounds, or HBox's radius, in float64."""
        x_L, x_U, weights, biases, lowers, uppers, C = self._cast(torch.float64)
        geometry = encode(self.layers)
        lines, leaks = [x_L.new_empty(0)] * len(lowers), [0.0] * len(weights)
        if hbox:
            radius, nothing = (x_U - x_L) / 2, [torch.zeros_like(bias) for bias in biases]
            rest = (weights, nothing, lowers, uppers, lines, C, None, None, geometry, leaks, "mask", False)
            return [-ops.crown_pass.reference(-radius, radius, *rest)[0]]
        known = self.known or (None, None)
        rest = (weights, biases, lowers, uppers, lines, C, *known, geometry, leaks, "adaptive", signs == 2)
        found = ops.crown_pass.reference(x_L, x_U, *rest)
        return list(found[:signs])

    def run(
        self, launcher: ModuleType, signs: int, hbox: bool, variant: str, dtype: torch.dtype = torch.float32
    ) -> list[Tensor]:
        """The same by one kernel."""
        x_L, x_U, weights, biases, lowers, uppers, C = self._cast(dtype)
        known = (None, None) if self.known is None or hbox else tuple(t.to(dtype) for t in self.known)
        if hbox:
            biases = [None] * len(weights)
            x_U = x_U / 2 - x_L / 2
            x_L = -x_U
        none = [x_L.new_empty(0)] * len(lowers)
        rule, leaks = "mask" if hbox else "adaptive", [0.0] * len(weights)
        found = launcher.run_pass(
            *(x_L, x_U, weights, biases, lowers, uppers, none, C, known),
            *(encode(self.layers), leaks, rule, signs, variant),
        )
        return [-found[0]] if hbox else list(found[:signs])


def problem(
    layers: list[Geometry], *, members: int = 2, samples: int = 2, rows: int | None = None, known: bool = False
) -> Problem:
    """Random numbers for a chain; ``rows`` rows of a specification, ``known``: about half the rows are stable."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float32).double()

    fans = [layer.in_channels * layer.kernel_height * layer.kernel_width for layer in layers]
    weights = [normal(members, *layer.weight_shape) / fan**0.5 for layer, fan in zip(layers, fans, strict=True)]
    middles = [normal(members, samples, layer.out_features) for layer in layers]
    halves = [normal(members, samples, layer.out_features).abs() + 0.05 for layer in layers]
    x = normal(1, samples, layers[0].in_features)
    last = layers[-1].out_features
    return Problem(
        layers,
        x - 0.1,
        x + 0.2,
        [w.float().double() for w in weights],
        [normal(members, layer.out_channels) for layer in layers],
        [(m - h).float().double() for m, h in zip(middles[:-1], halves[:-1], strict=True)],
        [(m + h).float().double() for m, h in zip(middles[:-1], halves[:-1], strict=True)],
        None if rows is None else normal(samples, rows, last),
        (middles[-1] - halves[-1], middles[-1] + halves[-1]) if known else None,
    )
