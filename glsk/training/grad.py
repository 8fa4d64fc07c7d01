"""Plain gradient certified training, the paper's GRAD baseline (section 4.1, App. B.1)."""

import torch
from torch import Tensor, nn

from glsk.training import optimizer_state
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.fitness import MiniBatch, RobustLoss
from glsk.training.schedules import annealed_eps, step_lr
from glsk.training.stage import Stage, State, check_loss


class Grad(Stage):
    """Adam on the robust cross-entropy, differentiated through the bounds.

    Args:
        net: the network to train, in place.
        batches: its mini-batches.
        loss: the robust loss of ``net``.
        config: learning-rate and perturbation schedules, ``grad_clip``.
    """

    name = "grad"

    def __init__(self, net: nn.Module, batches: Batches, loss: RobustLoss, config: Config) -> None:
        self.net, self.batches, self.loss, self.config = net, batches, loss, config
        self.steps_per_epoch = batches.steps_per_epoch
        self.steps = config.limited(config.epochs * self.steps_per_epoch)
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)

    def step(self, index: int) -> dict[str, float]:
        config = self.config
        x, y = self.batches.batch(index)
        eps = annealed_eps(config.eps, index, config.anneal_epochs * self.steps_per_epoch)
        lr = step_lr(config.lr, self.batches.epoch(index), config.milestones, config.gamma)
        self.loss.restart()
        loss = self.loss(MiniBatch(x, y, eps))
        value = check_loss(float(loss.detach()), self.name, index)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        if config.grad_clip > 0:
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip)
            check_loss(float(norm), f"{self.name} (gradient norm)", index)
        self.optimizer.step()
        return {"loss": value, "lr": lr, "eps": eps, "samples": len(x), "bounds_s": self.loss.seconds}

    def state(self) -> State:
        return optimizer_state.pack(self.optimizer)

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, object], index: int) -> None:
        optimizer_state.unpack(self.optimizer, tensors, meta)
