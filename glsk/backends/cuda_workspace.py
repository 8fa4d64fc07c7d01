"""What the passes of csrc/cuda allocate, known before any of them runs."""

from typing import Any

import torch

from glsk import backends, tiling
from glsk.backends import cuda_select
from glsk.backends.cuda_views import _CUDA, NULL, Around, View, products
from glsk.geometry import Geometry, encode
from glsk.workspace import Widest, Workspace

LANES = 32
GENERAL_BYTES = 256 << 20
BLOCKS = 3
"""As in csrc/cuda/pass_general.cu: rows and sides that a thread block carries at once, bytes of workspace at most, and
thread blocks on a multiprocessor."""


def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def pass_workspace(
    layers: tuple[Geometry, ...],
    spec_rows: int | None,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool,
) -> Workspace | Widest:
    """What a two-sided pass allocates; ``spec_rows``: rows of C, None for the last layer's.

    With ``backward``, enough for its gradient too, beside the gradients of weights, bounds and C themselves.
    """
    forward = _forward_workspace(layers, spec_rows, device, dtype)
    if not backward:
        return forward
    return Widest((forward, _backward_workspace(layers, spec_rows, device, dtype)))


def _forward_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype
) -> Workspace | Widest:
    spec = spec_rows is not None
    rows = layers[-1].out_features if spec_rows is None else spec_rows
    if len(layers) == 1 and not spec:
        return Workspace()  # an interval step
    if len(layers) > _CUDA.max_layers:
        return Workspace(per_pair=tiling.bytes_per_pair(layers, rows, "reference", dtype.itemsize))
    # How rows are cut, and so what serves them, may depend on how many (member, sample) pairs there are.
    passes = [of_shape(layers, rows, spec, dtype, samples) for samples in (1, 1 << 30)]
    index = device.index or 0
    variants = [cuda_select.variant_of(index, arguments) for arguments in passes]
    found: list[Workspace | Widest] = [
        Workspace(program=_CUDA.deep_workspace(index, arguments), programs=1, programs_per_pair=1, scalable=False)
        for arguments, variant in zip(passes, variants, strict=True)
        if variant == "deep"
    ]
    if "general" in variants and cuda_select.for_triton(layers, rows, spec, dtype):
        found.append(backends.pass_workspace("triton", layers, spec_rows, device, dtype))
    elif "general" in variants:
        widths = [layer.in_features for layer in layers[1:]] or [layers[0].in_features]
        block = 2 * LANES * max(*widths, layers[-1].out_features if spec else 1) * dtype.itemsize
        most = max(1, min(BLOCKS * _multiprocessors(device), GENERAL_BYTES // block))
        found.append(
            Workspace(program=block, programs=most, programs_per_pair=-(-rows // (LANES // 2)), scalable=False)
        )
    return found[0] if len(found) == 1 else Widest(tuple(found))


def of_shape(layers: tuple[Geometry, ...], rows: int, spec: bool, dtype: torch.dtype, samples: int) -> Any:
    """A two-sided pass of these shapes, of which no address is ever read."""
    some: View = (16, 0, 0)
    inner: list[Around] = [(16, 16, 0, 0, 0, 0)] * (len(layers) - 1)
    return _CUDA.Pass(
        members=1,
        samples=samples,
        rows=rows,
        signs=2,
        rule="adaptive",
        products=products(),
        is_double=dtype == torch.float64,
        geometry=encode(layers),
        weights=[(16, 0)] * len(layers),
        biases=[(16, 0)] * len(layers),
        arounds=inner,
        leaks=[0.0] * len(layers),
        x_lower=some,
        x_upper=some,
        C=some if spec else NULL,
        known_lower=NULL,
        known_upper=NULL,
        lower=16,
        upper=16,
    )


def _backward_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype
) -> Workspace:
    """What the gradient of a pass allocates beside the gradients it returns."""
    rows = layers[-1].out_features if spec_rows is None else spec_rows
    if len(layers) > _CUDA.max_layers:
        return Workspace(per_pair=2 * tiling.bytes_per_pair(layers, rows, "reference", dtype.itemsize))
    block, most = _CUDA.backward_workspace(device.index or 0, of_shape(layers, rows, spec_rows is not None, dtype, 1))
    # Of the box, of C and of the lines each pair has its own, which are then added up where they are shared.
    inner = sum(layer.out_features for layer in layers[:-1])
    own = 2 * layers[0].in_features + 4 * inner + (rows * layers[-1].out_features if spec_rows is not None else 0)
    return Workspace(
        per_pair=(own + 2 * rows) * dtype.itemsize, program=block, programs=most, programs_per_pair=1, scalable=False
    )
