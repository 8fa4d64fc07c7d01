"""Whether PyTorch can compute on a device, asked before any work."""

import torch


def check_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: unknown name, or a device that is not here; saying why and what to do.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device: unknown {name!r}; known: cpu, cuda, cuda:<number>")
    if kind == "cuda" and (reason := why_no_cuda()) is not None:
        raise ValueError(f"device: {name!r} cannot be used: {reason}; or use device 'cpu'")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ValueError(f"device: there is no {name!r}; PyTorch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def why_no_cuda() -> str | None:
    """None where PyTorch has a CUDA device, else why not and what to do."""
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA; install a CUDA build of it"
    if not torch.cuda.is_available():
        return (
            "PyTorch sees no CUDA device; check nvidia-smi, "
            f"and that the driver is new enough for CUDA {torch.version.cuda}"
        )
    return None
