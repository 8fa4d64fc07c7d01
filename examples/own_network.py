"""A network of your own: what glsk reads of it, and how the command line takes it.

glsk train --preset quick --model examples/own_network.py:make --out runs/own
glsk certify runs/own/weights.safetensors --model examples/own_network.py:make
"""

import torch
from torch import nn

import glsk


def make(input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """A small network with an average pool and a leaky ReLU, for images of any size from 8x8."""
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * ((height + 1) // 2 // 2) * ((width + 1) // 2 // 2), 16),
        nn.ReLU(),
        nn.Linear(16, num_classes),
    )


def main() -> torch.Tensor:
    net = make((1, 28, 28), 10).eval()
    bounded = glsk.BoundedModule(net, (1, 28, 28))
    print(bounded)  # every layer as glsk reads it
    try:
        glsk.BoundedModule(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), 4)
    except glsk.UnsupportedLayerError as error:
        print("refused:", error)
    x = torch.rand(2, 1, 28, 28)
    inner = bounded.intermediate_bounds(x, eps=0.05)  # of every pre-activation, by the affine layer's name
    for name, (lower, upper) in inner.items():
        unstable = ((lower < 0) & (upper > 0)).double().mean()
        print(f"layer {name}: {100 * unstable:.0f} % of {lower.shape[1]} units can be on either side of 0")
    lower, _ = bounded.compute_bounds(x, eps=0.05, clip=(0.0, 1.0), C=glsk.margins(torch.tensor([0, 1])))
    return lower


if __name__ == "__main__":
    main()
