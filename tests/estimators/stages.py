"""Estimators on small networks and images, as a run builds them."""

from types import SimpleNamespace

import torch
from torch import nn

from glsk import estimators
from glsk.training import Config, Phase, phases

SHAPE, CLASSES = (1, 3, 3), 3


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, CLASSES))


def small_images(count=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=generator), torch.randint(0, CLASSES, (count,), generator=generator)


def build(kind, net, images, *, classes=CLASSES, late=None, objective="CROWN", **settings):
    """The estimator called ``kind`` of a phase with these settings."""
    x, y = images
    config = Config(phases=(Phase(objective=objective, estimator=kind),)).override(**settings)
    data = SimpleNamespace(x_train=x, y_train=y, input_shape=tuple(x.shape[1:]), num_classes=classes)
    job = phases.job(config.main, net, data, config)
    choice = {} if late is None else {"late": late}
    return estimators.get(kind)(job, config.main.estimator_settings, **choice)
