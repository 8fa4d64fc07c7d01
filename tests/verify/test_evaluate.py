import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import glsk
from glsk.models import build
from glsk.verify import Evaluation, evaluate, evaluation_table
from glsk.verify.evaluate import certify_batch
from glsk.verify.inspect import inspect_sample, sample_tables

EPS = 0.05


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def linear():
    """Images away from the edge of the range, and a linear net, whose robust accuracy is known in closed form."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.normal_(net[1].weight)
    x = 0.2 + 0.6 * torch.rand(200, 1, 4, 4)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[:20] = (y[:20] + 1) % 3
    return net, x, y


def exactly_robust(net, x, y):
    weight, logits = net[1].weight.detach(), net(x).detach()
    margin = logits.gather(1, y[:, None]) - logits - EPS * (weight[y][:, None] - weight).abs().sum(2)
    return (margin.scatter(1, y[:, None], 1.0) > 0).all(1)


def test_accuracies_of_a_linear_net_are_exact(linear):
    net, x, y = linear
    robust = float(exactly_robust(net, x, y).float().mean())
    found = evaluate(net, x, y, eps=EPS, methods=glsk.methods(), num_classes=3, attack_steps=10, attack_restarts=2)
    assert 0.1 < robust < 0.85
    assert found.samples == 200
    assert found.natural == 0.9
    assert found.adversarial == pytest.approx(robust)
    assert found.certified == pytest.approx(dict.fromkeys(glsk.methods(), robust))
    assert found.contradictions == 0


def test_certified_samples_are_those_with_every_margin_positive(golden):
    with np.load(golden / "cnn3_pgd_eps0.1.npz") as file:
        arrays = dict(file)
    net = build("cnn3").double()
    net.load_state_dict({k.removeprefix("param:"): torch.from_numpy(v[0]) for k, v in arrays.items() if "param:" in k})
    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    found = certify_batch(glsk.BoundedModule(net, (1, 28, 28)), x, y, eps=float(arrays["eps"]), method="CROWN")
    expected = (arrays["CROWN:margin"][0] > 0).all(1)
    assert found.tolist() == expected.tolist()
    assert found.any()


def test_natural_bounds_adversarial_bounds_certified():
    net = build("cnn3", (1, 10, 10), 4, seed=2)
    x = torch.rand(60, 1, 10, 10)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = evaluate(net, x, y, eps=0.004, methods=["IBP", "CROWN"], num_classes=4, attack_steps=10)
    assert found.natural == 1
    assert found.natural >= found.adversarial >= found.certified["CROWN"] >= found.certified["IBP"]
    assert found.certified["CROWN"] > 0
    assert found.adversarial < 1
    assert found.contradictions == 0


def test_batch_size_does_not_matter(linear):
    net, x, y = linear
    settings = {"eps": EPS, "methods": ["CROWN", "IBP"], "num_classes": 3, "attack_restarts": 0}
    assert evaluate(net, x, y, batch_size=7, **settings) == evaluate(net, x, y, batch_size=500, **settings)


def test_without_restarts_there_is_no_attack(linear):
    net, x, y = linear
    found = evaluate(net, x, y, eps=EPS, methods=[], num_classes=3, attack_restarts=0)
    assert found.adversarial is None
    assert found.certified == {}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_table({"net": found}))
    assert [cell.strip() for cell in console.export_text().splitlines()[-2].strip("│").split("│")][1:] == ["90.00", "–"]


def test_float64_and_the_net_comes_back_as_it_was(linear):
    net, x, y = linear
    before = net[1].weight.detach().clone()
    single, double = (
        evaluate(net, x, y, eps=EPS, num_classes=3, dtype=dtype, attack_restarts=0)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.certified == double.certified
    assert torch.equal(net[1].weight, before)


def test_names_of_methods_are_canonical(linear):
    net, x, y = linear
    assert list(evaluate(net, x, y, eps=EPS, methods=["deeppoly"], num_classes=3).certified) == ["CROWN"]
    with pytest.raises(ValueError, match="zonotope"):
        evaluate(net, x, y, eps=EPS, methods=["zonotope"], num_classes=3)


def test_no_samples_are_refused(linear):
    net, x, y = linear
    with pytest.raises(ValueError, match="no samples"):
        evaluate(net, x[:0], y[:0], eps=EPS)


def test_table_shows_percent_and_every_method():
    rows = {
        "before": Evaluation(100, 0.1, 0.98, 0.91, {"IBP": 0.0, "CROWN": 0.874}),
        "after": Evaluation(100, 0.1, 0.97, 0.92, {"CROWN": 0.9153}),
    }
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_table(rows, "title"))
    text = console.export_text()
    for expected in ("title", "before", "98.00", "87.40", "91.53", "IBP", "CROWN"):
        assert expected in text


def test_a_narrow_table_keeps_the_names():
    rows = {"warm-start": Evaluation(100, 0.1, 0.98, 0.91, dict.fromkeys(("IBP", "HBox", "CROWN-IBP", "CROWN"), 0.5))}
    console = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_table(rows))
    assert "warm-start" in console.export_text()


def test_one_sample_in_detail():
    net = build("cnn3", (1, 10, 10), 4, seed=2)
    x = torch.rand(1, 10, 10)
    found = inspect_sample(net, x, 1, eps=0.01, method="crown", num_classes=4)
    assert found["method"] == "CROWN"
    assert [row["class"] for row in found["margins"]] == [0, 2, 3]
    with torch.no_grad():
        logits = net(x[None])[0]
    for row in found["margins"]:
        assert row["lower"] <= row["value"] <= row["upper"]
        assert row["value"] == pytest.approx(float(logits[1] - logits[row["class"]]), abs=1e-5)
    assert found["certified"] == all(row["lower"] > 0 for row in found["margins"])
    assert [row["layer"] for row in found["layers"]] == ["0", "2"]
    assert [row["units"] for row in found["layers"]] == [200, 32]
    for row in found["layers"]:
        assert row["active"] + row["inactive"] + row["unstable"] == row["units"]
    assert len(sample_tables(found)) == 2
