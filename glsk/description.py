"""A chain in words: one short line a layer."""

from glsk.geometry import Geometry
from glsk.network import Affine, Chain


def describe_chain(chain: Chain) -> str:
    """The input and every affine layer with what belongs to it."""
    lines = [f"input {list(chain.input_shape)}"]
    if chain.normalize is not None:
        lines.append(f"Normalize, {chain.normalize.mean.numel()} channels")
    return "\n  ".join([*lines, *map(_layer, chain.layers)])


def _layer(layer: Affine) -> str:
    shape = layer.geometry
    after = (", BatchNorm" if layer.batch_norm else "") + (f", {_activation(layer)}" if shape.relu else "")
    pool = "" if layer.weight else "average pool "
    return f"{layer.name}: {pool}{_map(shape)}{after}"


def _activation(layer: Affine) -> str:
    return f"LeakyReLU({layer.leak:g})" if layer.leak else "ReLU"


def _map(shape: Geometry) -> str:
    if shape.is_linear:
        return f"{shape.in_features} -> {shape.out_features}"
    size = f"[{shape.in_channels}, {shape.in_height}, {shape.in_width}] -> "
    size += f"[{shape.out_channels}, {shape.out_height}, {shape.out_width}]"
    kernel = f"kernel {shape.kernel_height}x{shape.kernel_width}"
    stride, padding = f"{shape.stride_height}x{shape.stride_width}", f"{shape.pad_height}x{shape.pad_width}"
    return f"{size}, {kernel}, stride {stride}, padding {padding}"
