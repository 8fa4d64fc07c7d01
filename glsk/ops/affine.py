"""An affine layer with one weight set a member, forwards and transposed: what the references are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor

from glsk.geometry import Geometry


def forward(values: Tensor, weight: Tensor, layer: Geometry) -> Tensor:
    """W v without the bias: values [P, B, in], weight [P, Cout, Cin, kh, kw] -> [P, B, out]."""
    if layer.is_linear:
        return values @ weight.flatten(1).unflatten(1, (layer.out_features, layer.in_features)).mT
    members, samples, _ = values.shape
    image = values.unflatten(2, (layer.in_channels, layer.in_height, layer.in_width))
    out = F.conv2d(
        image.transpose(0, 1).flatten(1, 2),
        weight.flatten(0, 1),
        stride=(layer.stride_height, layer.stride_width),
        padding=(layer.pad_height, layer.pad_width),
        groups=members,
    )
    return out.view(samples, members, -1).transpose(0, 1)


def transposed(rows: Tensor, weight: Tensor, layer: Geometry) -> Tensor:
    """A W: rows [P, B, R, out], weight [P, Cout, Cin, kh, kw] -> [P, B, R, in]."""
    if layer.is_linear:
        return rows @ weight.flatten(1).unflatten(1, (1, layer.out_features, layer.in_features))
    members, samples, count, _ = rows.shape
    image = rows.unflatten(3, (layer.out_channels, layer.out_height, layer.out_width))
    # What the strided convolution left unread at the far edge comes back as zeros.
    rest = (
        layer.in_height - ((layer.out_height - 1) * layer.stride_height - 2 * layer.pad_height + layer.kernel_height),
        layer.in_width - ((layer.out_width - 1) * layer.stride_width - 2 * layer.pad_width + layer.kernel_width),
    )
    out = F.conv_transpose2d(
        image.permute(1, 2, 0, 3, 4, 5).flatten(2, 3).flatten(0, 1),
        weight.flatten(0, 1),
        stride=(layer.stride_height, layer.stride_width),
        padding=(layer.pad_height, layer.pad_width),
        output_padding=rest,
        groups=members,
    )
    return out.view(samples, count, members, -1).permute(2, 0, 1, 3)


def per_unit(bias: Tensor, layer: Geometry) -> Tensor:
    """Bias [P, Cout] -> [P, out], one value a unit."""
    return torch.repeat_interleave(bias, layer.out_height * layer.out_width, dim=1)
