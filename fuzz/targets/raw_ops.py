"""``torch.ops.glsk.*`` given good and bad arguments: the reference's answer, or its refusal; never a crash."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fuzz.chain_arguments import arguments
from fuzz.damage import damaged
from tests.support import CPU_BACKENDS, assert_close

REFUSALS = (ValueError, TypeError, RuntimeError)
TOLERANCE = 1e-8
ASCENTS = ("optimised_pass", "branch_pass", "plane_search", "sign_ascent")


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    """An op, its arguments, and whether its gradient is wanted."""
    op, given = draw(arguments())
    return {"op": op, "arguments": draw(damaged(given)), "gradient": draw(st.booleans())}


def check(value: dict[str, Any]) -> None:
    """Every backend does what the reference does: refuses, or finds the same numbers in float64."""
    op, given = value["op"], list(value["arguments"].values())
    gradient = value["gradient"] and op not in ASCENTS
    wanted = _outcome(op, given, "reference", gradient)
    for backend in CPU_BACKENDS:
        found = _outcome(op, given, backend, gradient)
        if isinstance(wanted, Exception) or isinstance(found, Exception):
            same = isinstance(wanted, Exception) and isinstance(found, Exception)
            assert same, f"{op}: the reference gives {wanted!r:.300}, {backend} gives {found!r:.300}"
        elif _comparable(value):
            for ours, theirs in zip(found, wanted, strict=True):
                assert ours.shape == theirs.shape
                if ours.numel():
                    assert_close(ours, theirs, TOLERANCE)


def _outcome(op: str, given: list[Any], backend: str, gradient: bool) -> list[Tensor] | Exception:
    """The outputs, and the gradients of their sum; or what was refused."""
    if gradient:
        given = tree_map_only(Tensor, lambda t: t.detach().requires_grad_(t.is_floating_point()), given)
    try:
        outputs = getattr(torch.ops.glsk, op)(*given, backend)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        of = [out for out in outputs if out.requires_grad and out.numel()]
        if of:
            leaves = [t for t in tree_leaves(given) if isinstance(t, Tensor) and t.requires_grad]
            found = torch.autograd.grad(sum(out.sum() for out in of), leaves, allow_unused=True)
            outputs += [torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]
    except REFUSALS as error:
        return error
    return [out.detach() for out in outputs]


def _comparable(value: dict[str, Any]) -> bool:
    """Whether rounding is far from deciding anything: finite float64, no zeros or shared units to tie, no pruning."""
    given = value["arguments"]
    if given.get("prune") or value["op"] in ASCENTS:
        return False
    tensors = [t for t in tree_leaves(list(given.values())) if isinstance(t, Tensor)]
    if not all(t.dtype == torch.float64 and t.device.type == "cpu" and bool(t.isfinite().all()) for t in tensors):
        return False
    if any(t.numel() and bool((t == 0).any()) for t in tensors):
        return False
    pairs = [("lower", "upper"), ("x_L", "x_U"), ("box_lower", "box_upper"), ("lowers", "uppers")]
    ends = [zip(*(_listed(given.get(name)) for name in pair), strict=False) for pair in pairs]
    return all(bool((lower < upper).all()) for pair in ends for lower, upper in pair)


def _listed(value: Any) -> list[Tensor]:
    return value if isinstance(value, list) else [] if value is None else [value]
