"""PGPE in a loop of your own: evotorch asks for the losses of a population, glsk bounds all its networks at once."""

import argparse

import torch
from evotorch import Problem, SolutionBatch
from evotorch.algorithms import PGPE
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import glsk
from glsk.data import load


class RobustLoss(Problem):
    """The mean robust loss of each solution, a flat weight vector, on one mini-batch that all of them share."""

    def __init__(self, bounded: glsk.BoundedModule, eps: float) -> None:
        super().__init__("min", solution_length=bounded.num_parameters, initial_bounds=(-1.0, 1.0))
        self.bounded, self.ball = bounded, eps
        self.x, self.y = torch.empty(0), torch.empty(0)

    def _evaluate_batch(self, solutions: SolutionBatch) -> None:
        lower, _ = self.bounded.compute_bounds(
            self.x, eps=self.ball, clip=(0.0, 1.0), C=glsk.margins(self.y), params=solutions.values, bound_upper=False
        )
        solutions.set_evals(glsk.robust_cross_entropy(lower))


def main(
    steps: int = 50, popsize: int = 64, batch: int = 64, eps: float = 0.1, dataset: str = "mnist-5k"
) -> list[float]:
    torch.manual_seed(0)
    images = load(dataset)
    net = glsk.models.build("cnn3", images.input_shape, seed=0)
    problem = RobustLoss(glsk.BoundedModule(net, images.input_shape), eps)
    search = PGPE(
        problem,
        popsize=popsize,
        center_learning_rate=3e-3,
        stdev_learning_rate=0.1,
        stdev_init=1e-3,
        center_init=parameters_to_vector(net.parameters()).detach(),
        optimizer="adam",
        optimizer_config={"epsilon": 1e-14},  # evotorch's gradients carry a factor stdev_init**2
        ranking_method="centered",
    )
    losses = []
    for step in range(steps):
        index = torch.randint(len(images.x_train), (batch,))
        problem.x, problem.y = images.x_train[index], images.y_train[index]
        search.step()
        losses.append(float(search.status["mean_eval"]))
        if step % 10 == 0:
            print(f"step {step}: mean loss of the population {losses[-1]:.4f}")
    vector_to_parameters(search.status["center"].clone(), net.parameters())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dataset", default="mnist-5k", help="mnist-5k, mnist or an .npz file")
    options = parser.parse_args()
    main(options.steps, dataset=options.dataset)
