"""PGD adversarial training (Madry et al., 2018), from which PGPE starts (paper, section 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from glsk.attacks import pgd
from glsk.seeds import stream
from glsk.training import optimizer_state
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.schedules import annealed_eps, tail_decay
from glsk.training.stage import Stage, State, check_loss


class WarmStart(Stage):
    """Adam on the cross-entropy of PGD examples; the learning rate falls to zero over the second half.

    Args:
        net: the network to train, in place.
        batches: its mini-batches.
        config: the ``warm_*`` settings, ``eps`` and the seed.
    """

    name = "warm-start"

    def __init__(self, net: nn.Module, batches: Batches, config: Config) -> None:
        self.net, self.batches, self.config = net, batches, config
        self.steps_per_epoch = batches.steps_per_epoch
        self.steps = config.warm_epochs * self.steps_per_epoch
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.warm_lr)

    def step(self, index: int) -> dict[str, float]:
        config = self.config
        x, y = self.batches.batch(index)
        eps = annealed_eps(config.eps, index, config.warm_anneal_epochs * self.steps_per_epoch)
        lr = tail_decay(config.warm_lr, index, self.steps)
        adversarial = pgd(
            self.net, x, y, eps=eps, steps=config.warm_attack_steps, generator=stream(config.seed, "warm", index)
        )
        loss = functional.cross_entropy(self.net(adversarial), y)
        value = check_loss(float(loss.detach()), self.name, index)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": value, "lr": lr, "eps": eps, "samples": len(x), "bounds_s": 0.0}

    def state(self) -> State:
        return optimizer_state.pack(self.optimizer)

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, object], index: int) -> None:
        optimizer_state.unpack(self.optimizer, tensors, meta)
