"""Before anything is timed: do the providers compute the same?"""

from dataclasses import replace

import torch
from torch import Tensor

from bench import cases
from bench.cases import Case, Size

AGREEMENT = 1e-3
"""Of two providers' bounds, relative to their scale, and of their gradients, by parameter; float32."""

SMALL = (2, 4)
"""Members and samples that are compared."""

ROUNDING = 1e-5
"""How far below CROWN's an optimised bound may come out, relative to the bounds' scale; float32."""


def check(case: Case, providers: list[str], size: Size, device: str, backend: str) -> dict[str, dict[str, float]]:
    """provider -> what its row says of agreement.

    Args:
        size: the share of the work on which optimised bounds, whose mean is the result, are compared.

    Raises:
        SystemExit: if two providers differ too much.
    """
    if case.gradient:
        compared = [p for p in providers if p != "glsk-forward"]
        return _named(_gradients(case, compared, device, backend))
    if case.method == "alpha-CROWN":
        return _optimised(case, providers, size, device, backend)
    return _named(_bounds(case, providers, device, backend))


def _named(errors: dict[str, float]) -> dict[str, dict[str, float]]:
    return {provider: {"difference_from_noprune": error} for provider, error in errors.items()}


def _found(case: Case, providers: list[str], size: Size, device: str, backend: str) -> dict[str, Tensor]:
    return {p: cases.prepare(case, p, size, device, backend).call() for p in dict.fromkeys(providers)}


def _bounds(case: Case, providers: list[str], device: str, backend: str) -> dict[str, float]:
    """Largest difference of each provider's bounds from unpruned glsk's, relative to their scale."""
    found = _found(case, [*providers, "glsk-noprune"], SMALL, device, backend)
    # Pruning may tighten; auto_LiRPA prunes too, by rules of its own.
    plain, pruned = found["glsk-noprune"], found["glsk"]
    scale = plain.abs().max()
    errors = {p: float((lower - plain).abs().max() / scale) for p, lower in found.items()}
    for provider, lower in found.items():
        nearest = torch.minimum((lower - plain).abs(), (lower - pruned).abs()).max() / scale
        if not nearest <= AGREEMENT:
            raise SystemExit(f"{case.name}: {provider} differs by {float(nearest):.1e} of the scale; nothing was timed")
    return errors


def _gradients(case: Case, providers: list[str], device: str, backend: str) -> dict[str, float]:
    """Largest difference of each provider's gradients from unpruned glsk's, relative to its parameter's largest."""
    found = _found(case, [*providers, "glsk-noprune"], SMALL, device, backend)
    sizes = [p.numel() for p in cases.workload(case.net, 1, 1).net.parameters()]
    plain = found["glsk-noprune"].split(sizes, dim=1)
    errors = {}
    for provider, gradient in found.items():
        parts = zip(gradient.split(sizes, dim=1), plain, strict=True)
        errors[provider] = max(float((own - wanted).abs().max() / wanted.abs().max()) for own, wanted in parts)
        if not errors[provider] <= AGREEMENT:
            raise SystemExit(
                f"{case.name}: {provider}'s gradient differs by {errors[provider]:.1e} of its scale; nothing was timed"
            )
    return errors


def _optimised(case: Case, providers: list[str], size: Size, device: str, backend: str) -> dict[str, dict[str, float]]:
    """Mean lower bounds: optimisers differ, so only glsk's are held to something, to CROWN's from below."""
    found = _found(case, providers, size, device, backend)
    crown = _found(replace(case, method="CROWN"), ["glsk"], size, device, backend)["glsk"]
    below = float((crown - found["glsk"]).max() / crown.abs().max())
    if not below <= ROUNDING:
        raise SystemExit(f"{case.name}: glsk is below CROWN by {below:.1e} of the scale; nothing was timed")
    start = float(crown.mean())
    return {p: {"mean_lower": float(lower.mean()), "mean_lower_crown": start} for p, lower in found.items()}
