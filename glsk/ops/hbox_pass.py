"""An HBox pass: the radius that rows keep as exact functions of the input (hybrid zonotope; paper, §2.2, HBox)."""

from torch import Tensor

from glsk.geometry import decode
from glsk.ops import affine
from glsk.ops.crown_pass import empty_bounds, first_rows
from glsk.ops.registry import Op


def hbox_pass_reference(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
) -> Tensor:
    """|J| r for every row, J its Jacobian through the stable-active ReLUs only, r the radius of the box.

    This is the sum |E| of the hybrid zonotope without its input-sized generator columns E.

    Args:
        x_L, x_U: the box, [P, B, n] or [1, B, n].
        weights: of layers 0..k, [P, Cout, Cin, kh, kw].
        lowers, uppers: bounds of the outputs of layers 0..k-1, [P, B, out]; of a layer that no ReLU follows, empty.
        C: [B, S, out of layer k], or None for the outputs themselves.
        geometry: layers 0..k, encoded.

    Returns:
        radius [P, B, S], or [P, B, out]; not negative.
    """
    layers = decode(geometry)
    rows = first_rows(weights[-1], C, layers[-1]).expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    for k in reversed(range(len(layers))):
        if k < len(layers) - 1 and layers[k].relu:
            rows = rows * (lowers[k] >= 0).to(rows.dtype)[:, :, None]
        rows = affine.transposed(rows, weights[k], layers[k])
    return (rows.abs() @ ((x_U - x_L) / 2)[..., None]).squeeze(-1)


def _fake(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
) -> Tensor:
    return empty_bounds(x_L, weights, C, geometry, bound_upper=False)[0]


hbox_pass = Op(
    "hbox_pass",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] lowers, Tensor[] uppers, Tensor? C, int[] geometry, "
    "str backend) -> Tensor",
    hbox_pass_reference,
    _fake,
)
