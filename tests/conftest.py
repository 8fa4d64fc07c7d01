"""Every test starts from the same seeds, on a bounded number of threads."""

import os
import random
import signal
from pathlib import Path

import torch

# Without a GPU the Triton kernels run in Triton's interpreter, which must be asked for before they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis
import numpy as np
import pytest

# Whoever runs the tests in the background may have these ignored, which every child would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

hypothesis.settings.register_profile("glsk", deadline=None, derandomize=True, max_examples=20, database=None)
hypothesis.settings.load_profile("glsk")

# Parallel workers (pytest -n) share the cores.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, min(4, (os.cpu_count() or 1) // WORKERS)))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of bounds that other tools have computed."""
    return Path(__file__).parent / "golden"


def pytest_sessionstart() -> None:
    """GLSK_REQUIRE_CUDA=1, where a GPU is known to be: its tests must then not quietly be left out."""
    if os.environ.get("GLSK_REQUIRE_CUDA") == "1":
        from glsk import backends

        if (reason := backends.why_missing("cuda")) is not None:
            raise pytest.UsageError(f"GLSK_REQUIRE_CUDA is 1, but {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if item.get_closest_marker("gpu") is not None:  # not by keyword: a folder may bear the name
                item.add_marker(skip)
