"""Where a run's settings come from, and runs that differ by their seed alone."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glsk.arguments import printable
from glsk.training.config import Config
from glsk.training.presets import preset

if TYPE_CHECKING:
    from glsk.verify import Evaluation


@dataclass(frozen=True)
class Start:
    """The settings that a run begins with, before any single one is changed.

    Attributes:
        preset: a name as :func:`glsk.training.preset` reads it; not used with ``file``.
        file: a config.json.
        objective: another objective than those say.
        estimator: another estimator.
    """

    preset: str
    file: Path | None = None
    objective: str | None = None
    estimator: str | None = None

    @property
    def name(self) -> str:
        """Of the run, by default."""
        base = self.preset if self.file is None else self.file.stem
        return "-".join([base, *(part.lower() for part in (self.objective, self.estimator) if part)])

    def config(self, resumed: Path | None = None) -> Config:
        """The settings; of a resumed run, those in its folder.

        Raises:
            ValueError: naming what is wrong.
            CheckpointError: there is no run in the folder.
            OSError: the file cannot be read.
        """
        if resumed is None and self.file is None:
            return preset(self.preset, self.objective, self.estimator)
        if resumed is not None:
            from glsk.training.run_folder import read_config

            config = read_config(resumed)
        else:
            assert self.file is not None
            config = _from_file(self.file)
        changes = {"objective": self.objective, "estimator": self.estimator}
        return config.override(**{name: value for name, value in changes.items() if value is not None})


def train_seeds(
    folder: Path,
    seeds: str | None,
    settings: Callable[[Path | None], Config],
    *,
    data: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> "Iterator[tuple[Path, Config, dict[str, Evaluation]]]":
    """One run in ``folder``, or one a seed in ``folder/seed-<n>``, one after the other.

    A resumed series also runs the seeds that it had not come to.

    Args:
        folder: of the run, or of the series.
        seeds: whole numbers with commas between; None for one run with the seed of its settings.
        settings: the settings of a run, given the folder of the run to be resumed, None for a new one.
        data: as in :func:`glsk.training.loop.train`.
        resume: go on with what is in ``folder``.

    Yields:
        Folder, settings and results of every run, when it has ended.

    Raises:
        ValueError: a seed that is none, or is given twice; and as a run does.
    """
    from glsk.training.loop import train

    if seeds is None:
        config = settings(folder if resume else None)
        yield folder, config, train(config, folder, data=data, resume=resume)
        return
    for seed in read_seeds(seeds):
        at = folder / f"seed-{seed}"
        begun = resume and at.exists()
        config = settings(at if begun else None).override(seed=seed)
        yield at, config, train(config, at, data=data, resume=begun)


def read_seeds(text: str) -> list[int]:
    """Different whole numbers with commas between. Raises ValueError."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"seeds: expected whole numbers such as 0,1,2, got {text!r:.100}") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: {text!r:.100} holds a seed twice")
    return seeds


def _from_file(path: Path) -> Config:
    """Raises ValueError naming the file, or OSError."""
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError(f"expected settings, got {values!r:.50}")
        return Config.from_dict(values)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(error)
        raise ValueError(f"{path}: {reason}") from error
