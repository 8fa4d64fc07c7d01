"""Certified training by the gradient in a loop of your own: bounds are differentiable, so any optimiser will do."""

import argparse

import torch

import glsk
from glsk.data import load
from glsk.verify import evaluate


def main(
    steps: int = 200, batch: int = 64, eps: float = 0.1, method: str = "IBP", dataset: str = "mnist-5k"
) -> tuple[list[float], glsk.verify.Evaluation]:
    torch.manual_seed(0)
    images = load(dataset)
    net = glsk.models.build("cnn3", images.input_shape, seed=0, initialisation="shi")
    bounded = glsk.BoundedModule(net, images.input_shape)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        index = torch.randint(len(images.x_train), (batch,))
        x, y = images.x_train[index], images.y_train[index]
        size = eps * min(1.0, (step + 1) / (0.5 * steps))  # grows from 0, as certified training by the gradient needs
        lower, _ = bounded.compute_bounds(x, eps=size, clip=(0.0, 1.0), C=glsk.margins(y), method=method)
        loss = glsk.robust_cross_entropy(lower)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = evaluate(net, images.x_test[:200], images.y_test[:200], eps=eps, methods=["IBP", "CROWN"])
    print(f"after {steps} steps: natural {100 * found.natural:.1f} %, certified", found.certified)
    return losses, found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--dataset", default="mnist-5k", help="mnist-5k, mnist or an .npz file")
    options = parser.parse_args()
    main(options.steps, dataset=options.dataset)
