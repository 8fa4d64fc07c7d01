"""The bounds of one image, to look at."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import glsk
from glsk.errors import NumericalError
from glsk.precision import accurate
from glsk.verify.margins import certified_rows, lower_margins

if TYPE_CHECKING:
    from rich.table import Table


def inspect_sample(
    net: nn.Module,
    x: Tensor,
    y: int,
    *,
    eps: float,
    method: str = "CROWN",
    num_classes: int = 10,
    backend: str = "auto",
    clip: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Any]:
    """Margins and per-layer statistics of the bounds around one image.

    Args:
        net: the network.
        x: one image [C, H, W], of the net's dtype, in data units; ``certified`` is decided in that dtype, as
            :func:`glsk.verify.evaluate` does it (float32 is an estimate).
        y: its label.
        eps: L-infinity radius, in data units.
        method: the relaxation.
        num_classes: K.
        backend: of the bounds.
        clip: the data range.

    Returns:
        A dict JSON can hold: ``label``, ``prediction``, ``eps``, ``method``, ``certified``, ``margins`` (one
        ``{"class", "lower", "upper", "value"}`` for every other class) and ``layers`` (``{"layer", "units",
        "mean_width", "active", "inactive", "unstable"}`` for every ReLU's input).

    Raises:
        ValueError: unknown method, or a label out of range.
        NumericalError: the logits are NaN or infinite.
    """
    name = glsk.canonical_method(method)
    bounded = glsk.BoundedModule(net, tuple(x.shape))
    label = torch.tensor([y], device=x.device)
    margins = glsk.margins(label, num_classes).to(x.dtype)
    with torch.no_grad(), accurate():
        logits = net(x[None])[0]
        if not bool(logits.isfinite().all()):
            raise NumericalError("the network's logits for this image are NaN or infinite")
        box: dict[str, Any] = {"eps": eps, "clip": clip, "method": name, "backend": backend}
        lower, upper = bounded.compute_bounds(x[None], C=margins, **box)
        inner = bounded.intermediate_bounds(x[None], **box)
        query: dict[str, Any] = {"eps": eps, "method": name, "num_classes": num_classes, "backend": backend}
        certified = bool(certified_rows(lower_margins(bounded, x[None], label, clip=clip, **query)))
    assert upper is not None
    values = margins[0] @ logits
    others = [j for j in range(num_classes) if j != y]
    return {
        "label": y,
        "prediction": int(logits.argmax()),
        "eps": eps,
        "method": name,
        "certified": certified,
        "margins": [
            {"class": j, "lower": float(low), "value": float(value), "upper": float(up)}
            for j, low, value, up in zip(others, lower[0], values, upper[0], strict=True)
        ],
        "layers": [_layer(layer, low[0], up[0]) for layer, (low, up) in inner.items()],
    }


def _layer(name: str, lower: Tensor, upper: Tensor) -> dict[str, Any]:
    active, inactive = int((lower >= 0).sum()), int(((upper <= 0) & (lower < 0)).sum())
    return {
        "layer": name,
        "units": lower.numel(),
        "mean_width": float((upper - lower).mean()),
        "active": active,
        "inactive": inactive,
        "unstable": lower.numel() - active - inactive,
    }


def sample_tables(found: dict[str, Any]) -> "list[Table]":
    """What :func:`inspect_sample` returned, as two tables."""
    from rich.table import Table

    verdict = "certified" if found["certified"] else "not certified"
    title = f"label {found['label']}, prediction {found['prediction']}, eps {found['eps']:g}: {verdict}"
    margins = Table(title=f"{title} by {found['method']}")
    for column in ("margin over class", "lower", "value", "upper"):
        margins.add_column(column, justify="right")
    for row in found["margins"]:
        margins.add_row(str(row["class"]), *(f"{row[key]:.4f}" for key in ("lower", "value", "upper")))
    layers = Table(title="inputs of the ReLUs")
    for column in ("layer", "units", "mean width", "active", "inactive", "unstable"):
        layers.add_column(column, justify="right")
    for row in found["layers"]:
        counts = (str(row[key]) for key in ("active", "inactive", "unstable"))
        layers.add_row(row["layer"], str(row["units"]), f"{row['mean_width']:.4f}", *counts)
    return [margins, layers]
