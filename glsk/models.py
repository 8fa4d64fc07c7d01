"""The two networks of the paper (App. B.3, Table 4) as plain ``nn.Sequential``, by name."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from glsk.arguments import describe, whole_number
from glsk.input_shape import read_input_shape
from glsk.layers import Normalize
from glsk.own_network import is_reference, own_layers


def cnn3(input_shape: tuple[int, ...] = (1, 28, 28), num_classes: int = 10) -> list[nn.Module]:
    """Layers of CNN3: Conv 8 5x5/2/2, Conv 8 4x4/2/1, linear output; a ReLU after each but the output."""
    channels, height, width = input_shape
    height, width = _half(_half(height, 5, 2), 4, 1), _half(_half(width, 5, 2), 4, 1)
    return [
        nn.Conv2d(channels, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * height * width, num_classes),
    ]


def cnn5(input_shape: tuple[int, ...] = (1, 28, 28), num_classes: int = 10) -> list[nn.Module]:
    """Layers of CNN5: Conv 16 5x5/2/2, Conv 16 4x4/2/1, Conv 32 4x4/2/1, FC 512, linear output; ReLUs as in CNN3."""
    channels, height, width = input_shape
    height = _half(_half(_half(height, 5, 2), 4, 1), 4, 1)
    width = _half(_half(_half(width, 5, 2), 4, 1), 4, 1)
    return [
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * height * width, 512),
        nn.ReLU(),
        nn.Linear(512, num_classes),
    ]


MODELS: dict[str, Callable[[tuple[int, ...], int], list[nn.Module]]] = {"cnn3": cnn3, "cnn5": cnn5}
"""Name -> layers for an input shape (C, H, W) and a number of classes."""


def layers_of(name: str) -> Callable[[tuple[int, ...], int], list[nn.Module]]:
    """What makes the layers of a network of :data:`MODELS`, any case, or of ``file.py:function``. Raises ValueError."""
    if is_reference(name):
        return own_layers(name)
    if name.lower() not in MODELS:
        raise ValueError(f"model: unknown {describe(name)}; known: {', '.join(MODELS)}, file.py:function")
    return MODELS[name.lower()]


def build(
    name: str,
    input_shape: tuple[int, ...] = (1, 28, 28),
    num_classes: int = 10,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    initialisation: str = "kaiming-uniform",
) -> nn.Sequential:
    """A network with fresh weights, biases 0.

    Args:
        name: "cnn3" or "cnn5", any case, or ``file.py:function``: the file is executed, and the function, called with
            ``input_shape`` and ``num_classes``, returns an ``nn.Sequential``, whose weights are drawn afresh.
        input_shape: (C, H, W) of one image.
        num_classes: K, the number of logits.
        mean: per-channel mean; with it (and ``std``) a :class:`glsk.Normalize` comes first, if none does already.
        std: per-channel standard deviation.
        seed: of the initial weights; the global generator is left alone.
        initialisation: a name of :data:`INITIALISATIONS`.

    Returns:
        float32 on the CPU. Without ``mean`` the parameters of CNN3 are 0, 2, 5 and of CNN5 0, 2, 4, 7, 9.

    Raises:
        TypeError: an argument of another type.
        ValueError: unknown name or initialisation, an input too small for the network, no class, only one of ``mean``
            and ``std``, or not one a channel.
    """
    if not isinstance(name, str):
        raise TypeError(f"model: expected a name, got {describe(name)}")
    num_classes = whole_number("num_classes", num_classes, 1)
    seed = whole_number("seed", seed, 0)
    if seed >= 1 << 64:
        raise ValueError(f"seed: expected at most 64 bits, got {describe(seed)}")
    make = layers_of(name)
    if (mean is None) != (std is None):
        raise ValueError("model: mean and std come together")
    shape = read_input_shape(input_shape)
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise ValueError(f"model: {name} takes images (C, H, W) of at least 8x8 pixels, got {shape}")
    head = [] if mean is None or std is None else [Normalize(mean, std)]
    if head and head[0].mean.numel() not in (1, shape[0]):
        raise ValueError(f"model: mean and std have {head[0].mean.numel()} channels, the input has {shape[0]}")
    with torch.random.fork_rng(devices=[]):  # layers draw default weights when built
        layers = make(shape, num_classes)
    initialise(layers, seed, initialisation)
    if isinstance(layers[0], Normalize):
        head = []
    return nn.Sequential(*head, *layers)


def _kaiming_uniform(weight: Tensor, generator: torch.Generator) -> None:
    """Gain of a ReLU, fan in (He et al., 2015)."""
    bound = math.sqrt(6.0 / weight[0].numel())
    weight.uniform_(-bound, bound, generator=generator)


def _shi(weight: Tensor, generator: torch.Generator) -> None:
    """Normal with deviation sqrt(2 pi) / fan in, which keeps the width of intervals from layer to layer."""
    weight.normal_(0.0, math.sqrt(2 * math.pi) / weight[0].numel(), generator=generator)


INITIALISATIONS: dict[str, Callable[[Tensor, torch.Generator], None]] = {
    "kaiming-uniform": _kaiming_uniform,
    "shi": _shi,
}
"""Name -> draws a layer's weights: He et al. (2015), as in the paper, or Shi et al. (2021, section 3.2)."""


def initialise(layers: Sequence[nn.Module], seed: int, initialisation: str = "kaiming-uniform") -> None:
    """Weights as ``initialisation`` draws them and zero biases, in place, from a generator of its own.

    Raises:
        ValueError: an unknown initialisation.
    """
    if initialisation not in INITIALISATIONS:
        raise ValueError(f"initialisation: unknown {initialisation!r:.50}; known: {', '.join(INITIALISATIONS)}")
    generator = torch.Generator().manual_seed(seed)
    for layer in nn.Sequential(*layers).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            with torch.no_grad():
                INITIALISATIONS[initialisation](layer.weight, generator)
                if layer.bias is not None:
                    layer.bias.zero_()


def _half(size: int, kernel: int, padding: int) -> int:
    """Output size of a convolution of stride 2."""
    return (size + 2 * padding - kernel) // 2 + 1
