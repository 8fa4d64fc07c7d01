"""The phases of a run, and the network they train."""

from pathlib import Path

from torch import nn

from glsk import models
from glsk.data import Dataset
from glsk.module import BoundedModule
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.fitness import RobustLoss
from glsk.training.grad import Grad
from glsk.training.stage import Stage
from glsk.training.warm_start import WarmStart
from glsk.training.weights import load_weights


def names(config: Config) -> list[str]:
    """The phases that have any steps, in order."""
    epochs = {"warm-start": config.warm_epochs, config.algorithm: 0 if config.algorithm == "none" else config.epochs}
    return [name for name, count in epochs.items() if count]


def network(config: Config, dataset: Dataset) -> nn.Sequential:
    """The network before the first phase, on the CPU. Raises CheckpointError if ``config.init`` is no good file."""
    if config.init:
        net, _ = load_weights(Path(config.init), config.model)
        return net
    return models.build(
        config.model, dataset.input_shape, dataset.num_classes, mean=dataset.mean, std=dataset.std, seed=config.seed
    )


def stage(name: str, net: nn.Module, dataset: Dataset, config: Config) -> Stage:
    """A phase, to be built when it begins: ``net`` then holds the weights it starts from."""
    size = config.warm_batch_size if name == "warm-start" else config.batch_size
    batches = Batches(
        dataset.x_train,
        dataset.y_train,
        size,
        config.seed,
        augmented=config.augment,
        device="cpu" if name == "pgpe" and config.actors > 1 else config.device,  # the actors get it from here
    )
    if name == "warm-start":
        return WarmStart(net, batches, config)
    if name == "grad":
        bounded = BoundedModule(net, dataset.input_shape)
        loss = RobustLoss(
            bounded, config.method, dataset.num_classes, backend=config.backend, precision=config.precision
        )
        return Grad(net, batches, loss, config)
    from glsk.training.pgpe import Pgpe  # evotorch takes seconds to import

    return Pgpe(net, dataset.input_shape, dataset.num_classes, batches, config)
