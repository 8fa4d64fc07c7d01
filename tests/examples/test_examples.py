"""Every example runs, on small data."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    random = np.random.RandomState(0)
    centres, y = random.rand(10, 8, 8), np.arange(60) % 10
    x = np.clip(centres[y] + 0.05 * random.randn(60, 8, 8), 0, 1)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return str(path)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_from_auto_lirpa():
    found = example("from_auto_lirpa").main()
    assert found["population"].shape == (1000, 4, 9)
    assert bool((found["alpha-CROWN"] >= found["CROWN"] - 1e-5).all())


def test_own_pgpe_loop(dataset):
    losses = example("own_pgpe_loop").main(steps=12, popsize=16, batch=20, eps=0.01, dataset=dataset)
    assert len(losses) == 12
    assert losses[-1] < losses[0]


def test_own_network():
    assert example("own_network").main().shape == (2, 9)


def test_gradient_training(dataset):
    losses, found = example("gradient_training").main(steps=30, batch=20, eps=0.01, dataset=dataset)
    assert losses[-1] < losses[0]
    assert found.samples == 20


def test_the_notebook(dataset, tmp_path, monkeypatch):
    """Its code as a script: what a kernel adds is only how values are shown."""
    notebook = json.loads((EXAMPLES / "demo.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    monkeypatch.setenv("DEMO_DATASET", dataset)
    monkeypatch.setenv("DEMO_STEPS", "3")
    monkeypatch.setenv("DEMO_OUT", str(tmp_path / "run"))
    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "demo.ipynb", "exec"), names)
    assert {"warm-start", "pgpe"} <= set(names["results"])


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        assert path.suffix not in (".py", ".ipynb") or f'"{path.stem}' in text
