"""What a verdict may rest on."""

import pytest
import torch
from torch import nn

import glsk
from glsk.verify import evaluate
from glsk.verify.margins import lower_margins

X = torch.full((4, 1, 2, 2), 0.5)
Y = torch.zeros(4, dtype=torch.long)


def constant(margin):
    """Two logits that do not depend on the image: margin and 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].bias.copy_(torch.tensor([margin, 0.0], dtype=torch.float64))
    return net


@pytest.mark.parametrize(("margin", "share"), [(1e-8, 1), (1e-17, 1), (0.0, 0), (-1e-17, 0)])
def test_a_margin_of_no_rounding_is_decided_by_its_sign(margin, share):
    found = evaluate(constant(margin), X, Y, eps=0.1, num_classes=2, attack_restarts=1, attack_steps=1)
    assert found.certified == {"CROWN": share}


def test_a_margin_must_exceed_what_rounding_may_have_added():
    net = constant(1e-8)
    with torch.no_grad():
        net[1].weight.fill_(1e5)  # of both logits: the margin is as it was
    assert evaluate(net, X, Y, eps=0.1, num_classes=2).certified == {"CROWN": 0}


def test_a_certified_sample_that_is_broken_is_an_error_that_names_it(monkeypatch):
    net, y = constant(0.5), torch.tensor([0, 0, 1, 0])

    def wrong(bounded, x, y, **_):
        return torch.ones(len(x), 1, dtype=x.dtype)

    monkeypatch.setitem(evaluate.__globals__, "lower_margins", wrong)
    with pytest.raises(glsk.NumericalError, match="sample 2: certified"):
        evaluate(net, X, y, eps=0.1, num_classes=2, batch_size=2)
    found = evaluate(net, X, y, eps=0.1, num_classes=2, dtype=torch.float32)
    assert found.contradictions == 1


def test_float32_only_searches(monkeypatch):
    """Bounds that are wrong in float32 certify nothing."""

    def rosy(bounded, x, y, **query):
        lower = lower_margins(bounded, x, y, **query)
        return lower if x.dtype == torch.float64 else lower + 1

    monkeypatch.setitem(evaluate.__globals__, "lower_margins", rosy)
    assert evaluate(constant(0.0), X, Y, eps=0.1, num_classes=2).certified == {"CROWN": 0}


def test_methods_count_once_in_the_order_given():
    methods = ["deeppoly", "IBP", "CROWN", "ibp"]
    assert evaluate(constant(1.0), X, Y, eps=0.1, num_classes=2, methods=methods).certified == {"CROWN": 1, "IBP": 1}


@pytest.mark.parametrize(
    "change",
    [{"eps": -1.0}, {"eps": float("nan")}, {"batch_size": 0}, {"attack_restarts": -1}, {"dtype": torch.float16}],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        evaluate(constant(1.0), X, Y, **{"eps": 0.1, "num_classes": 2, **change})


def test_logits_that_are_not_finite_are_named():
    x = X.clone()
    x[3, 0, 0, 0] = torch.nan
    with pytest.raises(glsk.NumericalError, match="sample 3"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x, Y, eps=0.1, num_classes=2)
