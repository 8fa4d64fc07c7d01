"""The paper's settings by name, and a small one that ends in minutes on a laptop.

Names are ``<dataset>-<eps>-<model>-<relaxation>``, with ``-grad`` for the gradient baseline and ``pgd`` as the
relaxation for adversarial training alone. Section 4 and App. B.1, B.2 of the paper.
"""

from dataclasses import replace

from glsk.training.config import Config

_RELAXATIONS = {"ibp": "IBP", "hbox": "HBox", "crown-ibp": "CROWN-IBP", "deeppoly": "CROWN"}

# The PGD warm start's own settings are not in the paper.
_MNIST = Config(dataset="mnist")
_CIFAR = Config(dataset="cifar10", batch_size=128, augment=True, warm_epochs=80, warm_batch_size=128, warm_lr=1e-3)
_DATA = {
    "mnist-0.1": replace(_MNIST, eps=0.1),
    "mnist-0.3": replace(_MNIST, eps=0.3, anneal_epochs=50, warm_epochs=40, warm_anneal_epochs=20),
    "cifar10-2-255": replace(_CIFAR, eps=2 / 255),
    "cifar10-8-255": replace(_CIFAR, eps=8 / 255, anneal_epochs=50, warm_anneal_epochs=20),
}

# Minutes on two cores, on images that need no download. Small batches: all members share a batch, so its noise costs
# less than a smaller population would.
_QUICK = Config(
    dataset="mnist-5k",
    eps=0.1,
    warm_epochs=20,
    warm_batch_size=100,
    warm_attack_steps=5,
    epochs=5,
    batch_size=32,
    popsize=256,
    milestones=(3, 4),
    stdev_init=1e-3,
    lr=1e-3,
    attack_steps=20,
    attack_restarts=2,
    eval_methods=("IBP", "CROWN"),
)


def _grad(config: Config) -> Config:
    """App. B.1: no warm start; decays by 0.2, and eps anneals in every setting."""
    mnist = config.dataset == "mnist"
    return replace(
        config,
        algorithm="grad",
        warm_epochs=0,
        lr=5e-5,
        gamma=0.2,
        epochs=70 if mnist else 160,
        anneal_epochs=20 if mnist else 80,
        milestones=(50, 60) if mnist else (120, 140),
    )


def _table() -> dict[str, Config]:
    table = {"quick": _QUICK}
    for data, config in _DATA.items():
        for model in ("cnn3", "cnn5"):
            table[f"{data}-{model}-pgd"] = replace(config, model=model, algorithm="none")
            for name, method in _RELAXATIONS.items():
                pgpe = replace(config, model=model, method=method)
                table[f"{data}-{model}-{name}"] = pgpe
                table[f"{data}-{model}-{name}-grad"] = _grad(pgpe)
    return table


PRESETS: dict[str, Config] = _table()
"""Name -> settings."""


def preset(name: str) -> Config:
    """The settings called ``name``. Raises ValueError saying which there are."""
    if name not in PRESETS:
        raise ValueError(
            f"preset: unknown {name!r}; known: quick, and <{'|'.join(_DATA)}>-<cnn3|cnn5>-<{'|'.join(_RELAXATIONS)}>, "
            "with -grad for the gradient, or pgd for the relaxation"
        )
    return PRESETS[name]
