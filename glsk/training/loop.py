"""A whole run: phases, checkpoints, metrics, evaluations."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from glsk import backends, models
from glsk.certify import Evaluation, evaluate
from glsk.data import Dataset, load
from glsk.device import check_device
from glsk.errors import CheckpointError
from glsk.module import BoundedModule
from glsk.training import atomic, checkpoint
from glsk.training.batches import Batches
from glsk.training.checkpoint import Checkpoint
from glsk.training.config import ENGINE, Config
from glsk.training.fitness import RobustLoss
from glsk.training.grad import Grad
from glsk.training.metrics import Metrics
from glsk.training.progress import StageProgress
from glsk.training.stage import Stage
from glsk.training.warm_start import WarmStart
from glsk.training.weights import Description, load_weights, save_weights

WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints"
CONFIG = "config.json"


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Evaluation]:
    """Run ``config`` and leave the results in the folder ``out``.

    ``out`` gets config.json, metrics.jsonl, tensorboard/, checkpoints/, one ``<phase>.safetensors`` with the weights
    after each phase, weights.safetensors (the last of them) and results.json. A resumed run goes on from the newest
    good checkpoint and ends, on the same machine, in the same bits as one that was never stopped.

    Args:
        config: the settings.
        out: folder of the run.
        data: where the data set is, as in :func:`glsk.data.load`.
        resume: go on with the run in ``out``; only engine settings may differ from the ones it was started with.
        console: for progress; default standard error.

    Returns:
        Phase name -> evaluation of the weights after it.

    Raises:
        ValueError: bad settings, or other settings than the resumed run's.
        GlskError: data, checkpoint, backend or numerical trouble; the message says what to do.
        OSError: ``out`` cannot be written.
    """
    device = _device(config)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # or the backends look at GPU 0
        return _Run(config, Path(out), data, resume, console or Console(stderr=True)).finish()


def read_config(out: Path) -> Config:
    """The settings of the run in ``out``. Raises CheckpointError if there is none."""
    try:
        return Config.from_dict(json.loads((out / CONFIG).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(f"{out / CONFIG}: no run to resume ({error})") from error


@dataclass
class _Position:
    """Where a run stands: the next step of which phase, and how many steps earlier phases took."""

    phase: int = 0
    index: int = 0
    offset: int = 0
    results: dict[str, Evaluation] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return self.offset + self.index


class _Run:
    def __init__(
        self, config: Config, out: Path, data: str | os.PathLike[str] | None, resume: bool, console: Console
    ) -> None:
        self.config, self.out, self.console = config, out, console
        self.checkpoints = out / CHECKPOINTS
        if not resume and checkpoint.exists(self.checkpoints):
            raise ValueError(f"{out}: holds a run already; go on with it (--resume) or choose another folder (--out)")
        restored = checkpoint.latest(self.checkpoints) if resume else None
        if config.threads:
            torch.set_num_threads(config.threads)
        engine = backends.resolve(config.backend, check_device(config.device), torch.float32)
        self.dataset = load(config.dataset, data)
        self.data_digest = _fingerprint(self.dataset)
        self.net = self._network().to(config.device)
        self.description = Description(
            config.model, self.dataset.name, self.dataset.input_shape, self.dataset.num_classes, config.eps
        )
        BoundedModule(self.net, self.dataset.input_shape)  # refuses what cannot be bounded before any work
        self.phases = [name for name, steps in self._phases() if steps]
        self._say(f"bounds by the {engine} backend" + (", which is slow" if engine == "reference" else ""))
        self.position, self.restored = _Position(), restored
        if restored is not None:
            self._restore(restored)
        atomic.write_text(out / CONFIG, json.dumps(config.to_dict(), indent=1) + "\n")

    def _phases(self) -> list[tuple[str, int]]:
        config = self.config
        return [
            ("warm-start", config.warm_epochs),
            (config.algorithm, 0 if config.algorithm == "none" else config.epochs),
        ]

    def _network(self) -> nn.Sequential:
        config, dataset = self.config, self.dataset
        if config.init:
            net, _ = load_weights(Path(config.init), config.model)
            return net
        return models.build(
            config.model, dataset.input_shape, dataset.num_classes, mean=dataset.mean, std=dataset.std, seed=config.seed
        )

    def _stage(self, name: str) -> Stage:
        """Built when its phase begins: the net then holds the weights it starts from."""
        config, dataset = self.config, self.dataset
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
            return WarmStart(self.net, batches, config)
        if name == "grad":
            bounded = BoundedModule(self.net, dataset.input_shape)
            loss = RobustLoss(
                bounded, config.method, dataset.num_classes, backend=config.backend, precision=config.precision
            )
            return Grad(self.net, batches, loss, config)
        from glsk.training.pgpe import Pgpe  # evotorch takes seconds to import

        return Pgpe(self.net, dataset.input_shape, dataset.num_classes, batches, config)

    def finish(self) -> dict[str, Evaluation]:
        metrics = Metrics(self.out, self.position.step, tensorboard=self.config.tensorboard)
        try:
            if self.restored is None:
                self._save(None)
            while self.position.phase < len(self.phases):
                self._phase(self.phases[self.position.phase], metrics)
        finally:
            metrics.close()
        results = {name: result.to_dict() for name, result in self.position.results.items()}
        atomic.write_text(self.out / "results.json", json.dumps(results, indent=1) + "\n")
        save_weights(self.out / WEIGHTS, self.net, self.description)
        return self.position.results

    def _phase(self, name: str, metrics: Metrics) -> None:
        position = self.position
        stage = self._stage(name)
        try:
            if position.index and self.restored is not None:
                stage.restore(self.restored.group("stage"), self.restored.meta["stage"], position.index)
                if stage.drifted:
                    self._say("the last population's loss is not what it was; the run goes on, but not bit for bit")
            self._steps(stage, metrics)
            stage.export()
        finally:
            stage.close()
        self.restored = None
        position.results[name] = self._evaluate(self.config.eval_methods)
        if self.config.eval_every:
            metrics.write(_evaluation_record(position.step, position.results[name]))
        save_weights(self.out / f"{name}.safetensors", self.net, self.description)
        self.position = _Position(position.phase + 1, 0, position.step, position.results)
        self._save(None)

    def _steps(self, stage: Stage, metrics: Metrics) -> None:
        position = self.position
        with StageProgress(self.console, stage.name, stage.steps, position.index) as progress:
            last = time.perf_counter()
            for index, found in self._found(stage):
                position.index = index + 1
                now = time.perf_counter()
                record = self._record(stage, found, now - last)
                last = now
                metrics.write(record)
                progress.update(record["loss"], record["samples_per_s"])
                if self._evaluates(stage, position.index):
                    stage.export()
                    result = self._evaluate([self.config.method], torch.float32)
                    metrics.write(_evaluation_record(position.step, result))
                    last = time.perf_counter()
                if self._saves(stage, position.index):
                    self._save(stage)

    def _found(self, stage: Stage) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Every step and what it found, as soon as that is known; where the weights will be read, it waits for it."""
        earlier: tuple[int, Mapping[str, float]] | None = None
        for index in range(self.position.index, stage.steps):
            found = stage.step(index)
            if earlier is not None:
                yield earlier
            earlier = index, found
            done = index + 1
            if not stage.late or self._evaluates(stage, done) or self._saves(stage, done) or done == stage.steps:
                stage.settle()
                yield earlier
                earlier = None

    def _evaluates(self, stage: Stage, done: int) -> bool:
        every = 0 if stage.name == "warm-start" else self.config.eval_every
        return bool(every) and done % every == 0 and done < stage.steps

    def _saves(self, stage: Stage, done: int) -> bool:
        return done % self.config.checkpoint_every == 0 and done < stage.steps

    def _record(self, stage: Stage, step: Mapping[str, float], seconds: float) -> dict[str, Any]:
        """A line of metrics.jsonl.

        ``seconds`` run from the end of the previous step, so nothing goes unaccounted. A late stage says so itself, by
        the device's clock: the host may have read two steps at once.
        """
        found = dict(step)
        seconds = found.pop("step_s", seconds)
        samples, members, bounds_s = found.pop("samples"), found.pop("members", 1), found.pop("bounds_s")
        record = {
            "step": self.position.step,
            "stage": stage.name,
            "epoch": (self.position.index - 1) // stage.steps_per_epoch,
            **found,
            "samples_per_s": samples / seconds,
            "step_s": seconds,
        }
        if bounds_s:
            record.update(
                bounds_s=bounds_s, member_samples_per_s=members * samples / bounds_s, overhead=1 - bounds_s / seconds
            )
        return record

    def _evaluate(self, methods: "tuple[str, ...] | list[str]", dtype: torch.dtype = torch.float64) -> Evaluation:
        config, limit = self.config, self.config.eval_limit or None
        return evaluate(
            self.net,
            self.dataset.x_test[:limit],
            self.dataset.y_test[:limit],
            eps=config.eps,
            methods=methods,
            num_classes=self.dataset.num_classes,
            attack_steps=config.attack_steps,
            attack_restarts=config.attack_restarts,
            backend=config.backend,
            device=config.device,
            dtype=dtype,
            seed=config.seed,
        )

    def _save(self, stage: Stage | None) -> None:
        """A checkpoint of the current position, which is a phase's start if ``stage`` is None."""
        tensors: dict[str, Tensor] = {"rng/torch": torch.get_rng_state()}
        stage_meta: dict[str, Any] = {}
        if stage is not None:
            stage.export()
            stage_tensors, stage_meta = stage.state()
            tensors.update({f"stage/{name}": value for name, value in stage_tensors.items()})
        tensors.update({f"weights/{name}": value for name, value in self.net.state_dict().items()})
        meta = {
            "config": self.config.to_dict(),
            "network": vars(self.description),
            "data": self.data_digest,
            "phase": self.position.phase,
            "index": self.position.index,
            "stage": stage_meta,
            "results": {name: result.to_dict() for name, result in self.position.results.items()},
        }
        checkpoint.write(self.checkpoints, Checkpoint(self.position.step, tensors, meta))

    def _restore(self, found: Checkpoint) -> None:
        for reason in found.skipped:
            self._say(f"passed over a damaged checkpoint: {reason}")
        saved, now = found.meta["config"], self.config.to_dict()
        different = [name for name in now if name not in ENGINE and saved.get(name) != now[name]]
        if different:
            changes = ", ".join(f"{name} ({saved.get(name)} -> {now[name]})" for name in different)
            raise ValueError(f"--resume: these settings cannot change within a run: {changes}")
        if found.meta["data"] != self.data_digest:
            raise CheckpointError(f"{self.out}: was started on other data than {self.config.dataset} is here")
        self.net.load_state_dict(found.group("weights"))
        torch.set_rng_state(found.tensors["rng/torch"])
        results = {name: Evaluation(**values) for name, values in found.meta["results"].items()}
        index = found.meta["index"]
        self.position = _Position(found.meta["phase"], index, found.step - index, results)
        self._say(f"resumed at step {found.step}")

    def _say(self, text: str) -> None:
        self.console.print(f"glsk: {text}", markup=False, highlight=False, soft_wrap=True)


def _device(config: Config) -> torch.device:
    """The device to train on. Raises ValueError if PyTorch does not see it."""
    device = torch.device(config.device)
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise ValueError(f"device: {config.device!r} is not available to PyTorch here, which sees {seen} CUDA devices")
    return device


def _evaluation_record(step: int, result: Evaluation) -> dict[str, Any]:
    certified = {f"certified {name}": share for name, share in result.certified.items()}
    return {
        "step": step,
        "stage": "evaluation",
        "natural": result.natural,
        "adversarial": result.adversarial,
        **certified,
    }


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256(repr((list(dataset.x_train.shape), float(dataset.x_train.double().sum()))).encode())
    digest.update(dataset.y_train.numpy().tobytes())
    return digest.hexdigest()
