"""Complete verification: cheap incomplete methods and attacks first, branch and bound for what they leave."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch

import glsk
from glsk import precision
from glsk.arguments import number, whole_number
from glsk.requiring import check_installed
from glsk.verify.attack import AttackSettings
from glsk.verify.bounding import BranchSettings
from glsk.verify.engine import Networks
from glsk.verify.planes import PlaneSettings
from glsk.verify.property import Property
from glsk.verify.refine import RefineSettings
from glsk.verify.stages import Window
from glsk.verify.verdict import Verdict

WINDOW = 64
"""Properties that are taken at a time."""


@dataclass(frozen=True)
class VerifySettings:
    """How to search for a verdict; none of it affects what a verdict means.

    Attributes:
        attack: for unsafe inputs.
        branch: branch and bound on units.
        refine: bounds of hidden units.
        planes: above the first layer's units.
        complete: False stops after alpha-CROWN, with "unknown".
        alpha_iterations: of alpha-CROWN, and of the optimised bounds of hidden units at the root.
        input_dimensions: with at most so many input features, boxes are split and not units.
        window: properties taken at a time.
        clock: gives the seconds that count: ``time.perf_counter``, or ``time.process_time`` on a machine that others
            share.
    """

    attack: AttackSettings = field(default_factory=AttackSettings)
    branch: BranchSettings = field(default_factory=BranchSettings)
    refine: RefineSettings = field(default_factory=RefineSettings)
    planes: PlaneSettings = field(default_factory=PlaneSettings)
    complete: bool = True
    alpha_iterations: int = 20
    input_dimensions: int = 16
    window: int = WINDOW
    clock: Callable[[], float] = time.perf_counter


def verify(
    bounded: "glsk.BoundedModule",
    property: Property,
    *,
    timeout: float = 120.0,
    memory_limit: int | None = None,
    seed: int = 0,
    backend: str = "auto",
    settings: VerifySettings | None = None,
) -> Verdict:
    """Whether a network is safe: "unsat" if no input of the property's boxes has unsafe outputs, "sat" if one has.

    "unsat" is decided in float64 with rigorous slack (:mod:`glsk.verify.rounding`), so it is about the network in exact
    arithmetic; and so is "sat": it comes with an input of unsafe outputs (:mod:`glsk.verify.witness`).

    Args:
        bounded: the network, any dtype; a float64 copy of it is what is verified, on the CPU.
        property: boxes and unsafe sets, of the network's input shape and K.
        timeout: seconds after which to give up, looked at between steps.
        memory_limit: bytes for scratch memory and open subproblems; what is more waits on disk. None: 2 GiB.
        seed: of the attack's starts.
        backend: of the bounds.
        settings: how to search.

    Raises:
        ValueError: the property does not fit the network, or a setting is off.
        glsk.NumericalError: the network's outputs or bounds are not finite.
        glsk.MissingPackageError: SciPy is not installed, and the search is to be complete.
    """
    options = {"timeout": timeout, "memory_limit": memory_limit, "seed": seed, "backend": backend, "settings": settings}
    return next(verify_many(bounded, [property], **options))[1]  # type: ignore[arg-type]


def verify_many(
    bounded: "glsk.BoundedModule",
    properties: Iterable[Property],
    *,
    timeout: float = 120.0,
    memory_limit: int | None = None,
    seed: int = 0,
    backend: str = "auto",
    settings: VerifySettings | None = None,
) -> Iterator[tuple[int, Verdict]]:
    """:func:`verify` for many properties of one network, many at a time.

    Args: as :func:`verify`; ``timeout`` is of every property, and what a batch takes is shared among its properties.

    Yields:
        (number of the property, verdict), each as soon as it is there: not in order.
    """
    found = settings or VerifySettings()
    if not (number("timeout", timeout) > 0):
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")
    if found.complete:
        check_installed("scipy", "complete verification")
    limit = 2 << 30 if memory_limit is None else whole_number("memory_limit", memory_limit, 1, "number of bytes")
    networks = Networks(bounded.net, bounded.input_shape)
    remaining, first = iter(properties), 0
    while window := list(islice(remaining, found.window)):
        for i, one in enumerate(window):
            _check(bounded, first + i, one)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + first) % (1 << 63))
        with torch.no_grad(), precision.accurate():
            stages = Window(networks, window, timeout, limit, generator, backend, found)
            for i, verdict in stages.run():
                yield first + i, verdict
        first += len(window)


def _check(bounded: "glsk.BoundedModule", number: int, found: Property) -> None:
    if found.input_shape != bounded.input_shape:
        shapes = f"inputs {list(found.input_shape)}, the network takes {list(bounded.input_shape)}"
        raise ValueError(f"property {number}: {shapes}")
    outputs = bounded.chain.num_outputs
    if found.num_outputs != outputs:
        raise ValueError(f"property {number}: unsafe sets of {found.num_outputs} outputs, the network has {outputs}")


__all__ = ["VerifySettings", "verify", "verify_many"]
