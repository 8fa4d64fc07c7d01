"""Whether a network is what it was when its chain was built: asked at every call, a few microseconds a layer."""

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from glsk.arguments import is_lazy
from glsk.layers import Normalize

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

# What decides a layer's function beside its parameters and buffers. A layer type that is not here is never in a chain.
_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    Normalize: (),
    nn.Conv2d: ("stride", "padding", "dilation", "groups", "padding_mode"),
    nn.Linear: (),
    nn.ReLU: (),
    nn.LeakyReLU: ("negative_slope",),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    nn.Identity: (),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.BatchNorm1d: ("training", "eps"),
    nn.BatchNorm2d: ("training", "eps"),
    **dict.fromkeys(DROPOUTS, ("training",)),
}


def fingerprint(net: nn.Module) -> list[Any]:
    """All that a chain is built from; two are equal only if the chains are.

    Values of parameters and buffers are no part of it, since every call reads them anew; their names, shapes and which
    of them are the same tensor are.
    """
    found: list[Any] = [has_global_hooks()]
    _add(net, found)
    return found


def has_global_hooks() -> bool:
    """Whether a hook is registered for the forward of every module."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def is_altered(module: nn.Module) -> bool:
    """Whether the module's own hooks or a replaced forward may change what it computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _add(module: nn.Module, found: list[Any]) -> None:
    # The module itself, not its id: kept alive, no other can take its place unseen.
    found += (module, type(module), is_altered(module))
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            found += (name, id(tensor), None if tensor is None or is_lazy(tensor) else tensor.shape)
    if names := _ATTRIBUTES.get(type(module)):
        # As text: an attribute may be a list, which changes in place, or a tensor, which does not compare.
        found.append(repr([getattr(module, name, None) for name in names]))
    for name, child in module._modules.items():
        found.append(name)
        if child is not None:
            _add(child, found)
