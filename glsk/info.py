"""What glsk found on this machine: versions, processor, threads, backends and CUDA devices."""

import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch

from glsk import backends
from glsk.device import why_no_cuda

PACKAGES = ("torch", "triton", "evotorch", "ray", "numpy")
# The processor features that decide which code runs, by their names in /proc/cpuinfo.
FEATURES = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl", "asimd", "sve")


def info() -> dict[str, Any]:
    """What is installed and what this machine has, as plain values that JSON can hold.

    Returns:
        ``versions``: name -> version, None where not installed;
        ``cpu``: ``model``, ``features`` (of those that matter here) and ``isa``, the instruction set that glsk._C
        has picked, None without the extension;
        ``threads``: ``cores``, ``usable`` (by this process), ``torch``, ``OMP_NUM_THREADS``;
        ``backends``: name -> None if it can run here, else why not;
        ``auto``: device type -> the backend that ``backend="auto"`` takes there, None where there is no such device;
        ``cuda``: ``version`` that PyTorch is built for, None for a CPU build, and ``devices``, one dict each with
        ``name``, ``capability`` and ``memory_gib``.
    """
    return {
        "versions": _versions(),
        "cpu": _cpu(),
        "threads": _threads(),
        "backends": backends.available(),
        "auto": {
            "cpu": backends.auto(torch.device("cpu")),
            "cuda": backends.auto(torch.device("cuda")) if why_no_cuda() is None else None,
        },
        "cuda": {"version": torch.version.cuda, "devices": _cuda_devices()},
    }


def report() -> str:
    """:func:`info` as lines to read, one fact each."""
    found = info()
    cpu, threads, cuda = found["cpu"], found["threads"], found["cuda"]
    versions = [f"{name} {version or '(not installed)'}" for name, version in found["versions"].items()]
    counts = f"{threads['usable']} of {threads['cores']} cores usable, PyTorch uses {threads['torch']}"
    if threads["OMP_NUM_THREADS"]:
        counts += f", OMP_NUM_THREADS={threads['OMP_NUM_THREADS']}"
    rows = [("versions", ", ".join(versions)), ("cpu", cpu["model"]), ("features", " ".join(cpu["features"]) or "-")]
    if cpu["isa"]:
        rows.append(("kernels", f"{cpu['isa']} (chosen at run time)"))
    rows.append(("threads", counts))
    rows += [("gpu", f"{gpu['name']}, sm_{gpu['capability']}, {gpu['memory_gib']} GiB") for gpu in cuda["devices"]]
    if not cuda["devices"]:
        rows.append(("gpu", "no CUDA device" + ("" if cuda["version"] else "; this PyTorch is built without CUDA")))
    rows += [
        ("backend", f"{name}: {'available' if missing is None else f'not available: {missing}'}")
        for name, missing in found["backends"].items()
    ]
    rows += [("auto", f"{device} tensors: {_auto(name, device)}") for device, name in found["auto"].items()]
    return "\n".join(f"{label:<9} {text}" for label, text in rows)


def _auto(name: str | None, device: str) -> str:
    """What "auto" takes for tensors on ``device``, and why nothing faster."""
    if name is None:
        return f"there can be none: {why_no_cuda()}"
    faster = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}[device]
    missed = faster if name not in faster else faster[: faster.index(name)]
    slow = ", which is slow" if name == "reference" else ""
    return f"the {name} backend{slow}" + (f" ({' and '.join(missed)} not available, see above)" if missed else "")


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"glsk": _version("glsk"), "python": platform.python_version()}
    return versions | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    model, features = _proc_cpuinfo()
    isa = None
    try:
        extension = importlib.import_module("glsk._C")
    except ImportError:
        pass  # the line of the cpu backend says why
    else:
        features, isa = list(extension.cpu_features()), str(extension.isa())
    return {"model": model, "features": features, "isa": isa}


def _proc_cpuinfo(path: Path = Path("/proc/cpuinfo")) -> tuple[str, list[str]]:
    """The model name and those of FEATURES that Linux lists; elsewhere what Python knows, and no features."""
    fields: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())  # the first processor speaks for all
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, [name for name in FEATURES if name in flags]


def _threads() -> dict[str, Any]:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return {
        "cores": cores,
        "usable": usable,
        "torch": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _cuda_devices() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {
            "name": properties.name,
            "capability": f"{properties.major}{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
        for properties in every
    ]


if __name__ == "__main__":
    print(report())
