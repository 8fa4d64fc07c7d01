"""A whole run: phases, checkpoints, metrics, evaluations."""

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console

import glsk
from glsk import backends, stopping
from glsk.allocator import keep_freed_memory
from glsk.data import load
from glsk.device import check_device
from glsk.errors import CheckpointError
from glsk.estimators import Estimator
from glsk.module import BoundedModule
from glsk.training import atomic, checkpoint, lock, phases, run_folder
from glsk.training.checkpoint import Checkpoint
from glsk.training.config import Config
from glsk.training.metrics import Metrics
from glsk.training.phase import Phase
from glsk.training.position import Position, fingerprint, fitting, pack, unpack
from glsk.training.progress import StageProgress
from glsk.training.records import evaluation_record, step_record
from glsk.training.run_folder import CHECKPOINTS, RESULTS, WEIGHTS, read_config
from glsk.training.weights import Description, save_weights
from glsk.verify import Evaluation, evaluate

__all__ = ["read_config", "train"]


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
    good checkpoint, or from the start if there is none yet, and ends, on the same machine, in the same bits as one that
    was never stopped. Ctrl-C, SIGTERM and SIGHUP let the current step end and write a checkpoint; a second one does not
    wait. Only one process at a time can run in ``out``.

    Args:
        config: the settings.
        out: folder of the run.
        data: where the data set is, as in :func:`glsk.data.load`.
        resume: go on with the run in ``out``; only engine settings may differ from the ones it was started with.
        console: for progress; default standard error.

    Returns:
        Phase name -> evaluation of the weights after it.

    Raises:
        ValueError: bad settings, or other settings than the resumed run's, or another process is running in ``out``.
        GlskError: data, checkpoint, backend or numerical trouble; the message says what to do.
        OSError: a file of ``out`` cannot be written; it is named.
        Stopped: a signal ended the run; the message says where, and how it goes on. A KeyboardInterrupt.
    """
    device = _device(config)
    keep_freed_memory()
    with (
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),  # or the backends look at GPU 0
        stopping.listening(),
    ):
        run = _Run(config, Path(out), data, console or Console(stderr=True))
        try:
            return run.finish(resume)
        except stopping.Stopped as stop:
            raise stopping.Stopped(stop.number, run.where(stop)) from None


class _Run:
    def __init__(self, config: Config, out: Path, data: str | os.PathLike[str] | None, console: Console) -> None:
        self.config, self.out, self.data, self.console = config, out, data, console
        self.checkpoints = out / CHECKPOINTS
        self.position = Position()
        self.restored: Checkpoint | None = None
        self.saved: int | None = None
        """The step of the newest checkpoint that this run knows of."""

    def finish(self, resume: bool) -> dict[str, Evaluation]:
        """The whole run, or what is left of it."""
        with lock.locked(self.out) as holds:
            if not holds:
                self._say(f"{self.out}: this file system has no locks; a second run in the folder would go unnoticed")
            for folder in (self.out, self.checkpoints):
                atomic.remove_strays(folder)
            self._prepare(resume)
            return self._run()

    def where(self, stop: stopping.Stopped) -> str:
        """Where ``stop`` found the run, and how it goes on."""
        if self.saved is None:
            return f"stopped by {stop.name} before the first step; nothing is lost, the same command starts again"
        again = ["glsk", "train", "--resume", "--out", str(self.out)]
        if self.data is not None and self.config.dataset != str(self.data):
            again += ["--data", str(self.data)]
        place = f"step {self.position.step}"
        if self.saved != self.position.step:
            place += f", the last checkpoint is of step {self.saved}"
        return f"stopped by {stop.name} after {place}; go on with: {shlex.join(again)}"

    def _prepare(self, resume: bool) -> None:
        config = self.config
        if not resume and checkpoint.exists(self.checkpoints):
            raise ValueError(
                f"{self.out}: holds a run already; go on with it (--resume) or choose another folder (--out)"
            )
        self.restored = run_folder.to_resume(self.out, config) if resume else None
        if config.threads:
            torch.set_num_threads(config.threads)
        engine = backends.resolve(config.backend, check_device(config.device), torch.float32)
        self.dataset = load(config.dataset, self.data)
        self.data_digest = fingerprint(self.dataset)
        self.net = phases.network(config, self.dataset).to(config.device)
        self.description = Description(
            config.model, self.dataset.name, self.dataset.input_shape, self.dataset.num_classes, config.eps
        )
        BoundedModule(self.net, self.dataset.input_shape)  # refuses what cannot be bounded before any work
        self.phases = phases.that_run(config)
        self._say(f"bounds by the {engine} backend" + (", which is slow" if engine == "reference" else ""))
        if self.restored is not None:
            self._restore(self.restored)
        elif resume:
            self._say("resumed before the first checkpoint: from the start")
        run_folder.write_config(self.out, config)

    def _run(self) -> dict[str, Evaluation]:
        position = self.position
        metrics = Metrics(self.out, position.step, evaluated=position.evaluated, tensorboard=self.config.tensorboard)
        if metrics.dropped:
            self._say(f"{metrics.path}: left out {metrics.dropped} damaged lines")
        try:
            if self.restored is None:
                self._save(None)
            while self.position.phase < len(self.phases):
                self._phase(self.phases[self.position.phase], metrics)
        finally:
            metrics.close()
        with stopping.deferred():
            results = {name: result.to_dict() for name, result in self.position.results.items()}
            atomic.write_text(self.out / RESULTS, json.dumps(results, indent=1) + "\n")
            save_weights(self.out / WEIGHTS, self.net, self.description)
        return self.position.results

    def _phase(self, phase: Phase, metrics: Metrics) -> None:
        position, name = self.position, phase.name
        with stopping.deferred():
            estimator = phases.estimator(phase, self.net, self.dataset, self.config)
        try:
            if position.index and self.restored is not None:
                self._restore_estimator(estimator, self.restored)
            with stopping.deferred():
                self._steps(estimator, phase, metrics)
                estimator.export()
        finally:
            estimator.close()
        self.restored = None
        position.results[name] = self._evaluate(self.config.eval_methods)
        with stopping.deferred():
            metrics.write(evaluation_record(position.step, position.results[name]))
            save_weights(self.out / f"{name}.safetensors", self.net, self.description)
            self.position = Position(position.phase + 1, 0, position.step, results=position.results)
            self._save(None)

    def _steps(self, estimator: Estimator, phase: Phase, metrics: Metrics) -> None:
        """Between two steps the run can stop: it writes a checkpoint first."""
        position, every = self.position, phase.eval_every
        with StageProgress(self.console, estimator.name, estimator.steps, position.index) as progress:
            last, last_cpu = time.perf_counter(), time.process_time()
            if not position.evaluated and _evaluates(estimator, every, position.index):
                self._evaluate_between(estimator, phase, metrics)
            for index, found, rests in self._found(estimator, every):
                position.index = index + 1
                due = _evaluates(estimator, every, position.index)
                position.evaluated = not due and position.index < estimator.steps
                now, cpu = time.perf_counter(), time.process_time()
                record = step_record(estimator, index, position.step, found, now - last, cpu - last_cpu)
                last, last_cpu = now, cpu
                metrics.write(record)
                progress.update(record["loss"], record["samples_per_s"])
                if due:
                    self._evaluate_between(estimator, phase, metrics)
                    last, last_cpu = time.perf_counter(), time.process_time()
                stop = rests and stopping.asked()
                if stop or self._saves(estimator, position.index):
                    self._save(estimator)
                if stop:
                    stopping.check()

    def _evaluate_between(self, estimator: Estimator, phase: Phase, metrics: Metrics) -> None:
        """After a step. A run that is stopped here goes on with this evaluation."""
        estimator.export()
        try:
            with stopping.deferred(False):
                robust = phase.objective in glsk.methods()
                methods = (phase.objective,) if robust else self.config.eval_methods
                result = self._evaluate(methods, torch.float32)
        except stopping.Stopped:
            self._save(estimator)
            raise
        metrics.write(evaluation_record(self.position.step, result))
        self.position.evaluated = True

    def _found(self, estimator: Estimator, every: int) -> Iterator[tuple[int, Mapping[str, float], bool]]:
        """Every step, what it found, as soon as that is known, and whether the stage rests: no later step is queued.

        Where the weights will be read, it waits for it.
        """
        earlier: tuple[int, Mapping[str, float]] | None = None
        for index in range(self.position.index, estimator.steps):
            found = estimator.step(index)
            if earlier is not None:
                yield *earlier, False
            earlier = index, found
            done = index + 1
            if (
                not estimator.late
                or stopping.asked()
                or _evaluates(estimator, every, done)
                or self._saves(estimator, done)
                or done == estimator.steps
            ):
                estimator.settle()
                yield *earlier, True
                earlier = None

    def _saves(self, estimator: Estimator, done: int) -> bool:
        """The last step's checkpoint is what an evaluation that is stopped goes on from."""
        return done % self.config.checkpoint_every == 0 or done == estimator.steps

    def _evaluate(self, methods: tuple[str, ...], dtype: torch.dtype = torch.float64) -> Evaluation:
        config, limit = self.config, self.config.eval_limit or None
        return evaluate(
            self.net,
            self.dataset.x_test[:limit],
            self.dataset.y_test[:limit],
            eps=config.eps,
            methods=methods,
            num_classes=self.dataset.num_classes,
            attack_steps=config.eval_attack_steps,
            attack_restarts=config.eval_attack_restarts,
            backend=config.backend,
            device=config.device,
            dtype=dtype,
            seed=config.seed,
        )

    def _save(self, estimator: Estimator | None) -> None:
        """A checkpoint of the current position, which is a phase's start if ``estimator`` is None."""
        packed = pack(self.position, self.config, self.net, self.description, self.data_digest, estimator)
        checkpoint.write(self.checkpoints, packed)
        self.saved = self.position.step

    def _restore(self, found: Checkpoint) -> None:
        for reason in found.skipped:
            self._say(f"passed over a damaged checkpoint: {reason}")
        with fitting(found):
            saved, data = dict(found.meta["config"]), found.meta["data"]
        run_folder.check_same(self.config, saved)
        if data != self.data_digest:
            raise CheckpointError(f"{self.out}: was started on other data than {self.config.dataset} is here")
        self.position = unpack(found, self.net, len(self.phases))
        self.saved = found.step
        self._say(f"resumed at step {found.step}")

    def _restore_estimator(self, estimator: Estimator, found: Checkpoint) -> None:
        with fitting(found):
            tensors, meta = found.group("estimator"), found.meta["estimator"]
            estimator.restore(tensors, meta, self.position.index)
        if estimator.drifted:
            self._say("the last population's loss is not what it was; the run goes on, but not bit for bit")

    def _say(self, text: str) -> None:
        self.console.print(f"glsk: {text}", markup=False, highlight=False, soft_wrap=True)


def _evaluates(estimator: Estimator, every: int, done: int) -> bool:
    """Whether an evaluation follows after ``done`` steps of a phase, apart from the one at its end."""
    return bool(every) and done % every == 0 and done < estimator.steps


def _device(config: Config) -> torch.device:
    """The device to train on. Raises ValueError if PyTorch does not see it."""
    device = torch.device(config.device)
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= seen:
        raise ValueError(f"device: {config.device!r} is not available to PyTorch here, which sees {seen} CUDA devices")
    return device
