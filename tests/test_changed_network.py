"""A network that changes after its BoundedModule was made is bounded as it is now, or refused by the layer's name."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import prune

import glsk
from glsk.fingerprint import fingerprint
from tests.support import assert_bounds_close

SHAPE = (2, 6, 6)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        glsk.Normalize([0.1, 0.2], [0.5, 0.7]),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(108, 5),
        nn.ReLU(),
        nn.Linear(5, 5),
    )
    net(torch.randn(9, *SHAPE))
    return net.eval()


def set_(**attributes: object) -> Callable[[nn.Module], None]:
    def change(layer: nn.Module) -> None:
        for name, value in attributes.items():
            setattr(layer, name, value)

    return change


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(8)) / 4)


def at(index: int, change: Callable[[nn.Module], object]) -> Callable[[nn.Sequential], object]:
    return lambda net: change(net[index])


def replaced(index: int, layer: nn.Module) -> Callable[[nn.Sequential], None]:
    return lambda net: net.__setitem__(index, layer)


def tie(net: nn.Sequential) -> None:
    net[6] = nn.Linear(108, 5)
    net[8].bias = net[6].bias


STILL_SUPPORTED = {
    "a ReLU becomes the identity": replaced(7, nn.Identity()),
    "a layer appended": lambda net: net.append(nn.Linear(5, 4)),
    "two layers removed": lambda net: (net.pop(8), net.pop(7)),
    "a layer inserted": lambda net: net.insert(7, nn.Linear(5, 5)),
    "a ReLU made one of nested layers": replaced(7, nn.Sequential(nn.Linear(5, 5), nn.ReLU())),
    "the stride, a number": lambda net: (
        set_(stride=2, padding=1)(net[1]),
        net.__setitem__(6, nn.Linear(27, 5)),
    ),
    "the stride, a list": lambda net: set_(stride=[1, 1])(net[1]),
    "the padding and the next layer": lambda net: (set_(padding=(0, 0))(net[1]), net.__setitem__(6, nn.Linear(48, 5))),
    "no padding by name": lambda net: (set_(padding="valid")(net[1]), net.__setitem__(6, nn.Linear(48, 5))),
    "a bias removed": at(8, set_(bias=None)),
    "a weight of more outputs": at(8, set_(weight=parameter(7, 5), bias=parameter(7))),
    "tied parameters": tie,
    "a BatchNorm replaced": replaced(2, nn.BatchNorm2d(3).eval()),
    "a BatchNorm removed": replaced(2, nn.Identity()),
    "a BatchNorm's eps": at(2, set_(eps=0.5)),
    "a BatchNorm without weights": at(2, set_(weight=None, bias=None)),
    "a BatchNorm's statistics replaced": at(2, set_(running_mean=torch.ones(3), running_var=torch.full((3,), 2.0))),
    "the normalisation replaced": replaced(0, glsk.Normalize(0.3, 0.9)),
    "the normalisation's mean": at(0, lambda layer: layer.mean.fill_(0.4)),
    "a shared layer": lambda net: net.append(net[8]),
}

NO_LONGER_SUPPORTED = {
    "a hook": (at(3, lambda layer: layer.register_forward_hook(lambda *_: None)), r"'3' \(ReLU\).*hooks"),
    "a pre-hook": (at(6, lambda layer: layer.register_forward_pre_hook(lambda *_: None)), r"'6' \(Linear\).*hooks"),
    "a hook of the whole": (lambda net: net.register_forward_hook(lambda *_: None), r"'' \(Sequential\).*hooks"),
    "a hook of the identity": (
        lambda net: net.insert(7, nn.Identity()) and net[7].register_forward_hook(lambda *_: None),
        r"'7' \(Identity\).*hooks",
    ),
    "a forward of its own": (at(7, set_(forward=lambda x: x)), r"'7' \(ReLU\).*replaced forward"),
    "circular padding": (at(1, set_(padding_mode="circular")), r"'1' \(Conv2d\).*circular"),
    "dilation": (at(1, set_(dilation=(2, 2))), r"'1' \(Conv2d\): dilation"),
    "groups": (at(1, set_(groups=2)), r"'1' \(Conv2d\).*groups 2"),
    "a stride of zero": (at(1, set_(stride=(0, 1))), r"'1' \(Conv2d\): stride"),
    "a negative padding": (at(1, set_(padding=(-1, 0))), r"'1' \(Conv2d\): padding"),
    "a padding of no size": (at(1, set_(padding=None)), r"'1' \(Conv2d\): padding"),
    "a stride that changes the size": (at(1, set_(stride=(2, 2))), r"'6' \(Linear\): expects \[108\]"),
    "padding 'same' with a stride": (at(1, set_(padding="same", stride=(2, 2))), r"'1' \(Conv2d\): padding='same'"),
    "training": (lambda net: net.train(), r"'2' \(BatchNorm2d\): it must be in eval mode"),
    "dropout in training": (at(4, lambda layer: layer.train()), r"'4' \(Dropout\): it must be in eval mode"),
    "no running statistics": (at(2, set_(running_mean=None)), r"'2' \(BatchNorm2d\).*running statistics"),
    "a BatchNorm of other features": (replaced(2, nn.BatchNorm2d(4).eval()), "'2': 4 features"),
    "a BatchNorm's negative eps": (at(2, set_(eps=-1.0)), r"'2' \(BatchNorm2d\): eps"),
    "a short bias": (at(6, set_(bias=parameter(1))), r"'6' \(Linear\): bias: expected \[5\]"),
    "a short bias of a convolution": (at(1, set_(bias=parameter(1))), r"'1' \(Conv2d\): bias: expected \[3\]"),
    "a weight of other inputs": (at(8, set_(weight=parameter(5, 4))), r"'8' \(Linear\): expects \[4\]"),
    "a weight of three axes": (at(8, set_(weight=parameter(5, 5, 1))), r"'8' \(Linear\): weight"),
    "a flatten of other axes": (at(5, set_(start_dim=2)), r"'5' \(Flatten\)"),
    "the last layer gone": (lambda net: net.pop(8), "must end in an affine layer"),
    "another activation": (replaced(7, nn.Tanh()), r"'7' \(Tanh\)"),
    "a layer that is not initialised": (replaced(8, nn.LazyLinear(5)), r"'8' \(LazyLinear\): it is not initialised"),
    "a hole": (lambda net: net._modules.update({"7": None}), "'7': it is None"),
    "pruned": (at(8, lambda layer: prune.random_unstructured(layer, "weight", 0.5)), r"'8' \(Linear\)"),
    "a normalisation of other channels": (replaced(0, glsk.Normalize([0.0] * 3, [1.0] * 3)), r"'0' \(Normalize\)"),
    "a normalisation that turns the box round": (at(0, lambda layer: layer.std.neg_()), "std positive"),
    "a negative variance": (at(2, lambda layer: layer.running_var.fill_(-1)), "'2.running_var'"),
    "statistics that are not finite": (at(2, lambda layer: layer.running_mean.fill_(torch.nan)), "'2.running_var'"),
}


@pytest.mark.parametrize("what", STILL_SUPPORTED)
def test_the_bounds_are_those_of_the_network_as_it_is_now(what: str) -> None:
    net, x = network(), torch.rand(4, *SHAPE)
    bounded = glsk.BoundedModule(net, SHAPE)
    bounded.compute_bounds(x, eps=0.1)
    STILL_SUPPORTED[what](net)
    with torch.no_grad():
        found = bounded.compute_bounds(x, eps=0.1)
        assert_bounds_close(found, glsk.BoundedModule(net, SHAPE).compute_bounds(x, eps=0.1), 1e-6)
        at_x = bounded.compute_bounds(x, eps=0.0)
        assert_bounds_close(at_x, (net(x), net(x)), 1e-4)
        assert list(bounded.intermediate_bounds(x, eps=0.1)) == [
            layer.name for layer in bounded.chain.layers if layer.geometry.relu
        ]


@pytest.mark.parametrize("what", NO_LONGER_SUPPORTED)
def test_what_can_no_longer_be_bounded_is_refused_at_every_call(what: str) -> None:
    change, message = NO_LONGER_SUPPORTED[what]
    net, x = network(), torch.rand(4, *SHAPE)
    bounded = glsk.BoundedModule(net, SHAPE)
    change(net)
    for call in (bounded.compute_bounds, bounded.compute_bounds, bounded.intermediate_bounds):
        with pytest.raises(ValueError, match=message):
            call(x, eps=0.1)


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_global_hooks_are_refused_while_they_last(register: str) -> None:
    net, x = network(), torch.rand(4, *SHAPE)
    bounded = glsk.BoundedModule(net, SHAPE)
    handle = getattr(torch_module, register)(lambda *_: None)
    try:
        with pytest.raises(glsk.UnsupportedLayerError, match="global forward hooks"):
            bounded.compute_bounds(x, eps=0.1)
    finally:
        handle.remove()
    bounded.compute_bounds(x, eps=0.1)


def test_a_list_changed_in_place_is_seen() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten())
    net[0].stride = [1, 1]
    bounded = glsk.BoundedModule(net, (1, 7, 7))
    net[0].stride[0] = 2
    assert bounded.compute_bounds(torch.rand(2, 1, 7, 7), eps=0.1)[0].shape == (2, 15)


def test_what_is_mended_is_bounded_again() -> None:
    net, x = network(), torch.rand(4, *SHAPE)
    bounded = glsk.BoundedModule(net, SHAPE)
    wanted = bounded.compute_bounds(x, eps=0.1)
    net.train()
    with pytest.raises(ValueError, match="eval mode"):
        bounded.compute_bounds(x, eps=0.1)
    net.eval()
    assert_bounds_close(bounded.compute_bounds(x, eps=0.1), wanted, 1e-6)


def test_new_values_are_no_change_of_the_network() -> None:
    net = network()
    before = fingerprint(net)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.mul_(2)
    assert fingerprint(net) == before


def test_in_words_and_as_a_function() -> None:
    net, x = network(), torch.rand(4, *SHAPE)
    bounded = glsk.BoundedModule(net, x)
    assert torch.equal(bounded(x), net(x))
    text = repr(bounded)
    assert len(text.splitlines()) == 6
    assert "1: [2, 6, 6] -> [3, 6, 6], kernel 3x3, stride 1x1, padding 1x1, BatchNorm, ReLU" in text
    assert "8: 5 -> 5" in text
    net.train()
    assert "cannot be bounded as it is now: layer '2'" in repr(bounded)


def trained(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(glsk.Normalize(0.2, 0.5), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    net(3 * torch.randn(50, 4) + seed)
    return net.eval()


@pytest.mark.parametrize("form", ["pair", "merged", "without Normalize"])
def test_every_member_has_its_own_running_statistics(form: str) -> None:
    nets, x = [trained(seed) for seed in range(3)], torch.rand(5, 4)
    params, buffers = torch.func.stack_module_state(nets)
    given = {
        "pair": (params, buffers),
        "merged": {**params, **buffers},
        "without Normalize": {**params, **{name: b for name, b in buffers.items() if not name.startswith("0.")}},
    }[form]
    found = glsk.BoundedModule(nets[0], (4,)).compute_bounds(x, eps=0.1, params=given)
    for p, net in enumerate(nets):
        alone = glsk.BoundedModule(net, (4,)).compute_bounds(x, eps=0.1)
        assert_bounds_close((found[0][p], found[1][p]), alone, 1e-5)


def test_parameters_alone_take_the_modules_statistics() -> None:
    nets, x = [trained(seed) for seed in range(2)], torch.rand(5, 4)
    params, _ = torch.func.stack_module_state(nets)
    found = glsk.BoundedModule(nets[0], (4,)).compute_bounds(x, eps=0.0, params=params)[0]
    for name in ("running_mean", "running_var"):
        getattr(nets[1][2], name).copy_(getattr(nets[0][2], name))
    for p, net in enumerate(nets):
        torch.testing.assert_close(found[p], net(x), atol=1e-5, rtol=1e-4)


def test_the_gradient_reaches_statistics_of_members() -> None:
    nets = [trained(seed) for seed in range(2)]
    params, buffers = torch.func.stack_module_state(nets)
    mean = buffers["2.running_mean"].clone().requires_grad_()
    options = {"params": (params, {**buffers, "2.running_mean": mean}), "eps": 0.1}
    glsk.BoundedModule(nets[0], (4,)).compute_bounds(torch.rand(2, 4), **options)[0].sum().backward()
    assert mean.grad.abs().sum() > 0


EPS = torch.tensor([0.05, 0.1, 0.2])


@pytest.mark.parametrize(
    ("given", "same_as"),
    [
        (EPS, EPS.view(3, 1, 1, 1)),
        (EPS.double(), EPS.view(3, 1, 1, 1)),
        (torch.tensor([0.1]), torch.tensor(0.1)),
        (torch.tensor(0.1), torch.full((2, 6, 3), 0.1)),
        (torch.full((2, 1, 1), 0.1), torch.full((3, 2, 6, 3), 0.1)),
        (torch.tensor([0, 1, 2]), torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)),
    ],
)
def test_one_eps_a_sample_though_the_batch_is_as_long_as_the_image_is_wide(
    given: torch.Tensor, same_as: torch.Tensor
) -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Flatten(), nn.Linear(20, 3))
    x, bounded = torch.rand(3, 2, 6, 3), glsk.BoundedModule(net, (2, 6, 3))
    wanted = torch.broadcast_to(same_as, x.shape)
    found = bounded.compute_bounds(x, eps=given)
    assert_bounds_close(found, bounded.compute_bounds(x_L=x - wanted, x_U=x + wanted), 1e-6)


@pytest.mark.parametrize("weights", [[3e38], [-3e38], [3e38, 1.0]])
def test_an_end_on_the_wrong_side_is_an_error(weights: list[float]) -> None:
    """lower = +inf or upper = -inf would hold of no finite output, yet prove any margin."""
    net = nn.Sequential()
    for value in weights:
        net.append(nn.Linear(2, 2, bias=False)).append(nn.ReLU())
        nn.init.constant_(net[-2].weight, value)
    net.append(nn.Linear(2, 2))
    bounded = glsk.BoundedModule(net[:-2], (2,))
    with pytest.raises(glsk.NumericalError, match="overflow the dtype"):
        bounded.compute_bounds(torch.ones(1, 2), eps=0.01, method="IBP")
    with pytest.raises(glsk.NumericalError, match="overflow the dtype"):
        glsk.BoundedModule(net, (2,)).intermediate_bounds(torch.ones(1, 2), eps=0.01, method="IBP")
