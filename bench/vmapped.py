"""What a careful user would write in plain PyTorch: the bounds of one network, vectorised over weights by torch.func.

Written for speed within that style: no autograd, one-sided last passes, C merged into the last layer, the rows of a
linear layer taken from its weight, work cut so that the coefficients stay under a limit. It stores the coefficients
of every row, as plain PyTorch must.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Params = dict[str, Tensor]
Bounds = tuple[Tensor, Tensor]

METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ")


@dataclass
class _Affine:
    name: str
    module: nn.Conv2d | nn.Linear
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    relu: bool = False

    @property
    def outputs(self) -> int:
        return int(torch.Size(self.out_shape).numel())

    def forward(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[B, *in] -> [B, *out]."""
        if isinstance(self.module, nn.Linear):
            return F.linear(value.flatten(1), weight, bias)
        return F.conv2d(value, weight, bias, self.module.stride, self.module.padding)

    def transposed(self, rows: Tensor, weight: Tensor) -> Tensor:
        """[B, R, *out] -> [B, R, *in]."""
        if isinstance(self.module, nn.Linear):
            return (rows @ weight).unflatten(2, self.in_shape)
        module = self.module
        rest = [
            self.in_shape[i + 1] - (self.out_shape[i + 1] - 1) * s + 2 * p - k
            for i, (s, p, k) in enumerate(zip(module.stride, module.padding, module.kernel_size, strict=True))
        ]
        image = F.conv_transpose2d(rows.flatten(0, 1), weight, None, module.stride, module.padding, rest)
        return image.unflatten(0, rows.shape[:2])

    def per_unit(self, bias: Tensor) -> Tensor:
        """[Cout] -> [*out]."""
        return bias if len(self.out_shape) == 1 else bias[:, None, None].expand(self.out_shape)


class VmappedBounds:
    """Lower bounds of C f(x) for a population of weights.

    Args:
        net: an ``nn.Sequential`` of Conv2d, Linear (with biases), ReLU and Flatten, ending in a Linear.
        input_shape: of one sample.
    """

    def __init__(self, net: nn.Sequential, input_shape: tuple[int, ...]) -> None:
        self.layers: list[_Affine] = []
        value = torch.zeros(1, *input_shape)
        with torch.no_grad():
            for name, module in net.named_children():
                out = module.cpu()(value)
                if isinstance(module, nn.Conv2d | nn.Linear):
                    # a Linear reads the units of the layer before in their own shape
                    before = self.layers[-1].out_shape if self.layers else input_shape
                    self.layers.append(_Affine(name, module, before, tuple(out.shape[1:])))
                elif isinstance(module, nn.ReLU):
                    self.layers[-1].relu = True
                value = out

    @torch.no_grad()
    def lower(
        self, params: Params, x_L: Tensor, x_U: Tensor, C: Tensor, method: str, memory_limit: int = 256 << 20
    ) -> Tensor:
        """[P, B, S], for members ``params`` (name -> [P, *shape]) and boxes [B, *input_shape]."""
        one = {
            "IBP": self.ibp,
            "HBox": self.hbox,
            "CROWN-IBP": self.crown_ibp,
            "CROWN": self.crown,
            "DeepZ": partial(self.crown, parallel=True),
        }[method]
        members = next(iter(params.values())).shape[0]
        pairs = max(1, memory_limit // self.bytes_per_pair(method, C.shape[1], x_L.element_size()))
        b_step = min(len(C), pairs)
        chunk = min(members, max(1, pairs // b_step))
        call = torch.func.vmap(one, in_dims=(0, None, None, None), chunk_size=chunk)
        return torch.cat(
            [call(params, *(t[b : b + b_step] for t in (x_L, x_U, C))) for b in range(0, len(C), b_step)], 1
        )

    def bytes_per_pair(self, method: str, rows: int, itemsize: int) -> int:
        """The coefficients of the widest pass of one member and sample, a few copies of them."""
        sizes = [int(torch.Size(layer.in_shape).numel()) for layer in self.layers]
        if method == "IBP":
            return 8 * max(sizes) * itemsize
        if method != "CROWN-IBP":
            rows = max([rows, *(layer.outputs for layer in self.layers[1:-1])])
        return 8 * rows * max(sizes) * itemsize

    # One network, a batch of samples; all of these return [B, S].

    def ibp(self, params: Params, x_L: Tensor, x_U: Tensor, C: Tensor) -> Tensor:
        *_, (low, high) = self._boxes(params, x_L, x_U)
        return self._last_ibp(params, C, low, high)

    def crown_ibp(self, params: Params, x_L: Tensor, x_U: Tensor, C: Tensor) -> Tensor:
        inner = [(low, high) for low, high in self._pre_activations(params, x_L, x_U)]
        return self._specification(params, inner, x_L, x_U, C)

    def crown(self, params: Params, x_L: Tensor, x_U: Tensor, C: Tensor, parallel: bool = False) -> Tensor:
        inner = [self._interval(0, params, x_L, x_U)]
        for k in range(1, len(self.layers) - 1):
            rows = self._rows(k, params, len(C))
            bias = self.layers[k].per_unit(params[f"{self.layers[k].name}.bias"]).flatten()
            lower = bias + self._back(k - 1, rows, params, inner, x_L, x_U, parallel)
            upper = bias - self._back(k - 1, -rows, params, inner, x_L, x_U, parallel)
            inner.append((self._shaped(k, lower), self._shaped(k, upper)))
        return self._specification(params, inner, x_L, x_U, C, parallel)

    def hbox(self, params: Params, x_L: Tensor, x_U: Tensor, C: Tensor) -> Tensor:
        center = (x_L + x_U) / 2
        low = high = center
        masks: list[Tensor] = []
        for k, layer in enumerate(self.layers[:-1]):
            low, high = self._interval(k, params, low, high)
            if k == 0:
                radius = layer.forward((x_U - x_L) / 2, params[f"{layer.name}.weight"].abs(), None)
            else:
                radius = self._shaped(k, self._jacobian(k - 1, self._rows(k, params, len(C)), params, masks, x_L, x_U))
            lower, upper = low - radius, high + radius
            active = lower >= 0
            masks.append(active.to(low.dtype))
            low, high = torch.where(active, low, 0.0), torch.where(active, high, upper.clamp(min=0))
        rows = self._specification_rows(params, C)
        return self._last_ibp(params, C, low, high) - self._jacobian(
            len(self.layers) - 2, rows, params, masks, x_L, x_U
        )

    # Pieces.

    def _interval(self, k: int, params: Params, low: Tensor, high: Tensor) -> Bounds:
        layer = self.layers[k]
        weight, bias = params[f"{layer.name}.weight"], params[f"{layer.name}.bias"]
        center = layer.forward((low + high) / 2, weight, bias)
        radius = layer.forward((high - low) / 2, weight.abs(), None)
        return center - radius, center + radius

    def _pre_activations(self, params: Params, low: Tensor, high: Tensor) -> list[Bounds]:
        found = []
        for k, layer in enumerate(self.layers[:-1]):
            found.append(self._interval(k, params, low, high))
            low, high = found[-1]
            if layer.relu:
                low, high = low.clamp(min=0), high.clamp(min=0)
        return found

    def _boxes(self, params: Params, low: Tensor, high: Tensor) -> list[Bounds]:
        found = self._pre_activations(params, low, high)
        return [
            (low.clamp(min=0), high.clamp(min=0)) if layer.relu else (low, high)
            for layer, (low, high) in zip(self.layers, found, strict=False)
        ]

    def _last_ibp(self, params: Params, C: Tensor, low: Tensor, high: Tensor) -> Tensor:
        rows = self._specification_rows(params, C).flatten(2)
        low, high = low.flatten(1)[..., None], high.flatten(1)[..., None]
        found = rows @ ((low + high) / 2) - rows.abs() @ ((high - low) / 2)
        return found.squeeze(-1) + C @ params[f"{self.layers[-1].name}.bias"]

    def _rows(self, k: int, params: Params, samples: int) -> Tensor:
        """Layer k's outputs as functions of its inputs, [B, n, *in]."""
        layer = self.layers[k]
        weight = params[f"{layer.name}.weight"]
        if isinstance(layer.module, nn.Linear):
            rows = weight.unflatten(1, layer.in_shape)[None]
        else:
            eye = torch.eye(layer.outputs, dtype=weight.dtype, device=weight.device)
            rows = layer.transposed(eye.unflatten(1, layer.out_shape)[None], weight)
        return rows.expand(samples, *rows.shape[1:])

    def _specification_rows(self, params: Params, C: Tensor) -> Tensor:
        last = self.layers[-1]
        return (C @ params[f"{last.name}.weight"]).unflatten(2, last.in_shape)

    def _specification(
        self, params: Params, inner: list[Bounds], x_L: Tensor, x_U: Tensor, C: Tensor, parallel: bool = False
    ) -> Tensor:
        rows = self._specification_rows(params, C)
        found = self._back(len(self.layers) - 2, rows, params, inner, x_L, x_U, parallel)
        return found + C @ params[f"{self.layers[-1].name}.bias"]

    def _back(
        self,
        k: int,
        rows: Tensor,
        params: Params,
        inner: list[Bounds],
        x_L: Tensor,
        x_U: Tensor,
        parallel: bool = False,
    ) -> Tensor:
        """Lower bounds [B, R] of rows [B, R, *] over the outputs of layer k (after its ReLU)."""
        constant = 0.0
        for j in range(k, -1, -1):
            layer = self.layers[j]
            if layer.relu:
                low, high = inner[j]
                upper_slope = high.clamp(min=0) / (high.clamp(min=0) - low.clamp(max=0)).clamp(min=1e-30)
                lower_slope = upper_slope if parallel else (high > -low).to(low.dtype)
                negative = rows.clamp(max=0)
                shift = -upper_slope * low.clamp(max=0)
                constant = constant + (negative.flatten(2) @ shift.flatten(1)[..., None]).squeeze(-1)
                rows = rows.clamp(min=0) * lower_slope[:, None] + negative * upper_slope[:, None]
            bias = layer.per_unit(params[f"{layer.name}.bias"]).flatten()
            constant = constant + rows.flatten(2) @ bias
            rows = layer.transposed(rows, params[f"{layer.name}.weight"])
        rows = rows.flatten(2)
        center, radius = ((x_L + x_U) / 2).flatten(1), ((x_U - x_L) / 2).flatten(1)
        return constant + (rows @ center[..., None] - rows.abs() @ radius[..., None]).squeeze(-1)

    def _jacobian(self, k: int, rows: Tensor, params: Params, masks: list[Tensor], x_L: Tensor, x_U: Tensor) -> Tensor:
        """|J| r [B, R] through the ReLUs of layers 0..k that are active."""
        for j in range(k, -1, -1):
            rows = self.layers[j].transposed(rows * masks[j][:, None], params[f"{self.layers[j].name}.weight"])
        return (rows.flatten(2).abs() @ ((x_U - x_L) / 2).flatten(1)[..., None]).squeeze(-1)

    def _shaped(self, k: int, value: Tensor) -> Tensor:
        return value.unflatten(1, self.layers[k].out_shape)
