"""The phases of a run, built when they begin, and the network they train."""

from pathlib import Path

from torch import nn

from glsk import estimators, models, objectives
from glsk.data import Dataset
from glsk.estimators import Estimator, Job
from glsk.module import BoundedModule
from glsk.objectives.base import MiniBatch, Objective, check_data
from glsk.seeds import derive_seed
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.phase import Phase
from glsk.training.schedules import annealing, step_lr, tail_decay
from glsk.training.weights import load_weights


def that_run(config: Config) -> list[Phase]:
    """The phases that have any steps, in order."""
    return [phase for phase in config.phases if phase.epochs]


def network(config: Config, dataset: Dataset) -> nn.Sequential:
    """The network before the first phase, on the CPU. Raises CheckpointError if ``config.init`` is no good file."""
    if config.init:
        net, _ = load_weights(Path(config.init), config.model)
        return net
    return models.build(
        config.model,
        dataset.input_shape,
        dataset.num_classes,
        mean=dataset.mean,
        std=dataset.std,
        seed=config.seed,
        initialisation=config.initialisation,
    )


def estimator(phase: Phase, net: nn.Module, dataset: Dataset, config: Config) -> Estimator:
    """The estimator of a phase, to be built when it begins: ``net`` then holds the weights it starts from."""
    return estimators.get(phase.estimator)(job(phase, net, dataset, config), phase.estimator_settings)


def job(phase: Phase, net: nn.Module, dataset: Dataset, config: Config) -> Job:
    """What a phase's estimator works on."""
    actors = config.actors if config.actors > 1 and estimators.get(phase.estimator).has_actors else 0
    batches = Batches(
        dataset.x_train,
        dataset.y_train,
        phase.batch_size,
        config.seed,
        augmented=config.augment,
        device="cpu" if actors else config.device,  # the actors get it from here
    )
    per_epoch, radius = batches.steps_per_epoch, config.radius(phase)
    steps = phase.epochs * per_epoch
    steps = min(steps, phase.max_steps) if phase.max_steps else steps
    seed = derive_seed(config.seed, phase.name)
    settings = vars(phase.objective_settings)
    shape, classes = dataset.input_shape, dataset.num_classes

    def objective(checked: bool) -> Objective:
        return objectives.create(
            phase.objective,
            BoundedModule(net, shape),
            classes,
            settings,
            backend=config.backend,
            checked=checked,
            precision=config.precision,
            seed=seed,
        )

    def minibatch(index: int) -> MiniBatch:
        x, y = batches.batch(index)
        ramp = annealing(index, phase.anneal_epochs * per_epoch)
        return MiniBatch(x, y, radius * ramp, step=index, ramp=ramp)

    def lr(index: int) -> float:
        if phase.decay == "linear":
            return tail_decay(phase.lr, index, steps)
        return step_lr(phase.lr, batches.epoch(index), phase.milestones, phase.gamma)

    return Job(
        name=phase.name,
        net=net,
        objective=objective,
        minibatch=minibatch,
        check_data=lambda: check_data(batches.x, batches.y, classes),
        lr=lr,
        steps=steps,
        steps_per_epoch=per_epoch,
        seed=seed,
        device=config.device,
        threads=config.threads,
        actors=actors,
        ray_address=config.ray_address,
    )
