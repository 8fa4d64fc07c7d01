"""Changes of an op's arguments: some leave them good (strides, shared memory), most make them bad."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

KEEPING = ("transposed", "every other", "offset", "shared", "zeros")
BREAKING = ("nan", "infinite", "dtype", "meta", "longer", "shorter", "dimension", "flat", "empty", "none", "conjugate")
INTEGERS = (-1, 0, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63))
FLOATS = (-1.0, -0.0, 0.5, 1.0, 1.5, float("nan"), float("inf"), 1e-320, 1e308)


@st.composite
def damaged(draw: st.DrawFn, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with up to three changes."""
    found = dict(arguments)
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 3)))):
        name = draw(st.sampled_from(sorted(found)))
        found[name] = _changed(draw, found[name])
    return found


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, list):
        return _changed_list(draw, value)
    if isinstance(value, Tensor):
        return _changed_tensor(draw, value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.sampled_from([n for n in INTEGERS if n < 9]))  # a number of iterations: those would never end
    if isinstance(value, float):
        return draw(st.sampled_from(FLOATS))
    if isinstance(value, str):
        return draw(st.sampled_from(("", "CROWN", "IBP", "HBox", "DeepZ", "mask", "adaptive", "\0", "\u00e9" * 99)))
    return draw(st.sampled_from((None, torch.zeros(1), torch.zeros(1, 1, 1, dtype=torch.float64))))


def _changed_list(draw: st.DrawFn, values: list[Any]) -> list[Any]:
    how = draw(st.sampled_from(("entry", "entry", "entry", "longer", "shorter", "empty", "swapped")))
    if how == "empty" or not values:
        return []
    if how == "longer":
        return [*values, values[-1]]
    if how == "shorter":
        return values[:-1]
    if how == "swapped":
        return values[::-1]
    k, changed = draw(st.integers(0, len(values) - 1)), list(values)
    if isinstance(values[k], int):
        changed[k] = draw(st.sampled_from((values[k] - 1, values[k] + 1, *INTEGERS)))
    else:
        changed[k] = _changed(draw, values[k])
    return changed


def _changed_tensor(draw: st.DrawFn, t: Tensor) -> Any:
    how = draw(st.sampled_from((*KEEPING, *BREAKING)))
    axis = draw(st.integers(0, max(0, t.dim() - 1)))
    if t.dim() == 0 or t.numel() == 0:
        how = draw(st.sampled_from(("dtype", "meta", "none", "dimension")))
    if how in ("nan", "infinite") and not t.is_floating_point():
        how = "flat"
    if how == "transposed":
        return t.transpose(0, axis).contiguous().transpose(0, axis)
    if how == "every other":
        return torch.stack([t, t], dim=-1).flatten(-2)[..., ::2]
    if how == "offset":  # not aligned to a vector of any instruction set
        return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)
    if how == "shared":  # one slice's memory along an axis
        return t.narrow(axis, 0, 1).expand(t.shape)
    if how == "zeros":
        return torch.zeros_like(t)
    if how in ("nan", "infinite"):
        t = t.clone(memory_format=torch.contiguous_format)
        t.view(-1)[draw(st.integers(0, t.numel() - 1))] = {"nan": float("nan"), "infinite": float("-inf")}[how]
        return t
    if how == "dtype":
        kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
        return t.to(draw(st.sampled_from(kinds)))
    if how == "meta":
        return t.to("meta")
    if how == "longer":
        return torch.cat([t, t.narrow(axis, 0, 1)], dim=axis)
    if how == "shorter":
        return t.narrow(axis, 0, t.shape[axis] - 1)
    if how == "dimension":
        return t.unsqueeze(axis)
    if how == "flat":
        return t.flatten()
    if how == "empty":
        return t.new_empty(0)
    if how == "conjugate":
        return torch.complex(t, t).conj().imag if t.dtype in (torch.float32, torch.float64) else t  # negated lazily
    return None
