"""Tightness and landscapes of a network."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from typer.testing import CliRunner

import glsk
from glsk.analysis import LandscapeSettings, landscape, tightness
from glsk.analysis.landscape import plot_landscape
from glsk.analysis.tightness import areas
from glsk.cli import app
from glsk.models import build
from glsk.objectives import MiniBatch
from glsk.training.weights import Description, save_weights
from glsk.verify import evaluate


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis")
    random = np.random.RandomState(0)
    x, y = random.rand(8, 8, 8).astype(np.float32), np.arange(8) % 3
    np.savez(folder / "tiny.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    save_weights(
        folder / "w.safetensors", build("cnn3", (1, 8, 8), 3, seed=1), Description("cnn3", "tiny", (1, 8, 8), 3, 0.01)
    )
    return folder


def test_tightness_is_certified_accuracy_over_the_size():
    net = build("cnn3", (1, 8, 8), 3, seed=1)
    x, y = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    y = net(x).argmax(1)
    rows = tightness(net, x, y, sizes=[0, 0.005, 0.05], methods=["IBP", "DeepPoly"], num_classes=3)
    assert [(row["method"], row["eps"]) for row in rows] == [(m, e) for m in ("IBP", "CROWN") for e in (0, 0.005, 0.05)]
    for row in rows:
        found = evaluate(net, x, y, eps=row["eps"], methods=[row["method"]], num_classes=3, attack_restarts=0)
        assert row["certified"] == found.certified[row["method"]]
    assert areas(rows)["IBP"] < areas(rows)["CROWN"]
    with pytest.raises(ValueError, match="two or more that ascend"):
        tightness(net, x, y, sizes=[0.1, 0.1], methods=["IBP"], num_classes=3)


def test_the_area_is_the_mean_height():
    rows = [{"method": "m", "eps": e, "certified": c} for e, c in ((0.0, 1.0), (0.1, 0.5), (0.4, 0.0))]
    assert areas(rows)["m"] == pytest.approx((0.1 * 0.75 + 0.3 * 0.25) / 0.4)


def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    batch = MiniBatch(torch.rand(5, 4).double(), torch.tensor([0, 1, 2, 0, 1]), 0.05)
    return net, glsk.BoundedModule(net, 4), batch


def loss_of(net, bounded, batch, method):
    C = glsk.margins(batch.y, 3).double()
    lower, _ = bounded.compute_bounds(batch.x, eps=batch.eps, clip=(0.0, 1.0), C=C, method=method)
    return (1 + (-lower).exp().sum(1)).log().mean()


def test_the_line_follows_the_gradient_and_holds_the_losses():
    net, bounded, batch = small()
    rows = landscape(bounded, batch, 3, LandscapeSettings(("IBP", "DeepPoly"), radius=0.02, points=3, stdevs=()))
    centre = parameters_to_vector(net.parameters()).detach().clone()
    gradient = torch.autograd.grad(loss_of(net, bounded, batch, "CROWN"), list(net.parameters()))
    step = parameters_to_vector(gradient)
    for row in rows:
        vector_to_parameters(centre + row["t"] * step / step.norm(), net.parameters())
        expected = loss_of(net, bounded, batch, row["method"]).item()
        assert row["loss"] == pytest.approx(expected, rel=1e-9)
    crown = [row["loss"] for row in rows if row["method"] == "CROWN"]
    assert crown[0] < crown[1] < crown[2]  # uphill


def test_a_smoothed_loss_is_the_mean_of_a_population_with_its_error():
    _, bounded, batch = small()
    settings = LandscapeSettings(("CROWN",), points=3, stdevs=(1e-9, 0.1), popsizes=(8, 500))
    rows = landscape(bounded, batch, 3, settings)
    at = {(r["sigma"], r["popsize"], round(r["t"], 9)): r for r in rows}
    assert len(at) == 3 + 2 * 2 * 3
    assert at[1e-9, 8, 0.0]["loss"] == pytest.approx(at[0.0, 0, 0.0]["loss"], rel=1e-6)
    few, many = at[0.1, 8, 0.0], at[0.1, 500, 0.0]
    assert 0 < many["standard_error"] < few["standard_error"]
    assert abs(few["loss"] - many["loss"]) < 5 * few["standard_error"]
    assert rows == landscape(bounded, batch, 3, settings)
    figure = plot_landscape(rows)
    assert [len(ax.lines) for ax in figure.axes] == [1] * 5
    assert figure.axes[0].lines[0].get_ydata()[1] == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"methods": ()}, {"methods": ("PGD",)}, {"direction": "alpha-CROWN"}, {"radius": 0}, {"points": 4},
     {"stdevs": (0,)}, {"popsizes": (1,)}],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"methods|method|direction|radius|points|stdevs|popsizes"):
        LandscapeSettings(**wrong)


def test_the_commands_write_pictures_and_numbers(here, tmp_path):
    weights, data = str(here / "w.safetensors"), ["--data", str(here / "tiny.npz")]
    out = tmp_path / "t.png"
    options = ["--out", str(out), "--method", "IBP,CROWN", "--eps", "0,0.01,2/255", "--json"]
    result = CliRunner().invoke(app, ["tightness", weights, *data, *options], catch_exceptions=False)
    assert json.loads(result.stdout).keys() == {"IBP", "CROWN"}
    assert len(list(csv.DictReader(out.with_suffix(".csv").open()))) == 6
    out = tmp_path / "l.svg"
    options = ["--out", str(out), "--points", "3", "--stdev", "1e-3", "--popsize", "4,8", "--method", "CROWN"]
    result = CliRunner().invoke(app, ["landscape", weights, *data, *options], catch_exceptions=False)
    assert "8 training images, eps 0.01" in result.stdout
    assert len(list(csv.DictReader(out.with_suffix(".csv").open()))) == 3 + 2 * 3
    assert out.read_text().lstrip().startswith("<?xml")
