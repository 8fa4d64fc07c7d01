"""What a network must look like to be bounded, and how a refusal names the layer that is in the way."""

import pytest
import torch
from torch import nn

import glsk
from glsk.network import build_chain


class Doubling(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_chain_of_an_image_network() -> None:
    net = nn.Sequential(
        glsk.Normalize([0.1, 0.2], [0.5, 1.0]),
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 3 * 5, 7, bias=False),
    )
    chain = build_chain(net, (2, 6, 6))
    assert chain.normalize is net[0]
    assert [layer.name for layer in chain.layers] == ["1", "4"]
    assert chain.geometry[0] == (2, 6, 6, 4, 3, 5, 3, 2, 2, 1, 1, 0, 1)
    assert chain.geometry[1] == (60, 1, 1, 7, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    assert chain.layers[1].bias is None
    assert chain.num_outputs == 7
    assert list(chain.parameter_shapes) == ["1.weight", "1.bias", "4.weight"]


def test_nested_sequentials_keep_their_paths() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Sequential(nn.Linear(4, 2))))
    assert [layer.name for layer in build_chain(net, (3,)).layers] == ["0.0", "1.0.0"]


@pytest.mark.parametrize("place", [lambda net: net, lambda net: net[0]])
@pytest.mark.parametrize("change", ["hook", "pre-hook", "forward"])
def test_what_may_change_a_layers_function_is_refused(place, change: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    module = place(net)
    if change == "hook":
        module.register_forward_hook(lambda module, given, out: out + 1)
    elif change == "pre-hook":
        module.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
    else:
        module.forward = lambda x: x
    with pytest.raises(glsk.UnsupportedLayerError, match="forward hooks or a replaced forward"):
        build_chain(net, (3,))


def test_a_bare_layer_is_a_network() -> None:
    assert build_chain(nn.Linear(3, 2), (3,)).num_outputs == 2


def test_a_relu_object_used_twice_counts_twice() -> None:
    relu = nn.ReLU()
    chain = build_chain(nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2)), (3,))
    assert [layer.geometry.relu for layer in chain.layers] == [1, 1, 0]


def test_a_shared_affine_layer_counts_twice() -> None:
    shared = nn.Linear(3, 3)
    chain = build_chain(nn.Sequential(shared, nn.ReLU(), shared), (3,))
    assert [(layer.name, layer.weight) for layer in chain.layers] == [("0", "0.weight"), ("2", "0.weight")]


@pytest.mark.parametrize(
    ("padding", "kernel", "wanted"), [("valid", 3, (0, 0)), ("same", 3, (1, 1)), ("same", (1, 5), (0, 2))]
)
def test_padding_by_name(padding: str, kernel: int, wanted: tuple[int, int]) -> None:
    (layer,) = build_chain(nn.Sequential(nn.Conv2d(1, 1, kernel, padding=padding)), (1, 7, 7)).geometry
    assert (layer.pad_height, layer.pad_width) == wanted


@pytest.mark.parametrize(
    ("layers", "culprit"),
    [
        ([nn.Conv2d(2, 2, 3), nn.MaxPool2d(2)], r"'1' \(MaxPool2d\)"),
        ([nn.Conv2d(2, 2, 3), nn.AvgPool2d(2, ceil_mode=True)], r"'1' \(AvgPool2d\): only ceil_mode=False"),
        ([nn.AvgPool2d(2, padding=1, count_include_pad=False)], r"'0' \(AvgPool2d\): .*count_include_pad=True"),
        ([nn.Conv2d(2, 2, 3, groups=2)], r"'0' \(Conv2d\): .*groups 2"),
        ([nn.Conv2d(2, 2, 3, dilation=2)], r"'0' \(Conv2d\): dilation \(2, 2\)"),
        ([nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")], r"'0' \(Conv2d\): .*'reflect'"),
        ([nn.Conv2d(2, 2, 2, padding="same")], r"'0' \(Conv2d\): padding='same' with an even kernel"),
        ([nn.ConvTranspose2d(2, 2, 3)], r"'0' \(ConvTranspose2d\)"),
        ([nn.Conv2d(2, 2, 3), nn.Sequential(nn.ReLU(), nn.Sigmoid())], r"'1\.1' \(Sigmoid\)"),
        ([nn.Conv2d(2, 2, 3), nn.LeakyReLU(-0.1)], r"'1' \(LeakyReLU\): negative_slope must lie in \[0, 1\]"),
        ([nn.Conv2d(2, 2, 3), nn.LeakyReLU(1.5)], r"'1' \(LeakyReLU\): negative_slope must lie in \[0, 1\]"),
        ([nn.Conv2d(2, 2, 3), nn.LeakyReLU(float("nan"))], r"'1' \(LeakyReLU\): negative_slope .* it is nan"),
        ([nn.Conv2d(2, 2, 3), nn.ReLU6()], r"'1' \(ReLU6\)"),
        ([nn.Conv2d(2, 2, 3), nn.Dropout()], r"'1' \(Dropout\)"),
        ([Doubling(nn.Conv2d(2, 2, 3))], r"'0' \(Doubling\)"),
        ([nn.Conv2d(2, 2, 3), glsk.Normalize(0.0, 1.0)], r"'1' \(Normalize\): Normalize must be the first layer"),
        ([glsk.Normalize(0.0, 1.0), glsk.Normalize(0.0, 1.0)], r"'1' \(Normalize\): Normalize must be the first"),
        ([nn.ReLU(), nn.Conv2d(2, 2, 3)], r"'0' \(ReLU\): a ReLU must follow an affine layer"),
        ([nn.Conv2d(2, 2, 3), nn.ReLU()], r"'0': the network must end in an affine layer"),
        ([nn.BatchNorm2d(2).eval(), nn.Conv2d(2, 2, 3)], r"'0' \(BatchNorm2d\): it must come right after a Conv2d"),
        ([nn.Conv2d(2, 2, 3), nn.ReLU(), nn.BatchNorm2d(2).eval()], r"'2' \(BatchNorm2d\): it must come right after"),
        ([nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)], r"'1' \(BatchNorm2d\): it must be in eval mode"),
        ([nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2, track_running_stats=False).eval()], r"'1' \(BatchNorm2d\): .*running"),
        ([nn.Flatten(2), nn.Linear(72, 3)], r"'0' \(Flatten\): only Flatten\(start_dim=1"),
        ([nn.Flatten(1, 2), nn.Linear(72, 3)], r"'0' \(Flatten\)"),
        ([nn.Flatten()], "no affine layer"),
        ([], "no affine layer"),
    ],
)
def test_unsupported_networks_are_refused_by_name(layers: list[nn.Module], culprit: str) -> None:
    with pytest.raises(glsk.UnsupportedLayerError, match=culprit) as caught:
        glsk.BoundedModule(nn.Sequential(*layers), (2, 6, 6))
    assert "supported" in str(caught.value) or "affine layer" in str(caught.value)


def test_computed_weights_are_refused() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(glsk.UnsupportedLayerError, match="'0'"):
        glsk.BoundedModule(net, (3,))
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 4)))
    with pytest.raises(glsk.UnsupportedLayerError, match=r"'0' \(Linear\): its weight is computed"):
        glsk.BoundedModule(net, (3,))


def test_the_refusal_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Tanh"):
        glsk.BoundedModule(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), (3,))


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([nn.Linear(5, 2)], (4,), r"'0' \(Linear\): expects \[5\], is given \[4\]"),
        ([nn.Linear(36, 2)], (1, 6, 6), r"'0' \(Linear\): .*put nn.Flatten before it"),
        ([nn.Conv2d(3, 2, 3)], (1, 6, 6), r"'0' \(Conv2d\): expects \[3, H, W\], is given \[1, 6, 6\]"),
        ([nn.Conv2d(1, 2, 3)], (9,), r"'0' \(Conv2d\)"),
        ([nn.Conv2d(1, 2, 7)], (1, 6, 6), r"'0' \(Conv2d\): kernel \(7, 7\) exceeds"),
        ([nn.Linear(4, 5), nn.BatchNorm1d(4).eval()], (4,), "'1': 4 features"),
        ([glsk.Normalize([0.0] * 3, [1.0] * 3), nn.Conv2d(2, 2, 3)], (2, 6, 6), "'0' \\(Normalize\\): 3 channels"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: list[nn.Module], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        glsk.BoundedModule(nn.Sequential(*layers), shape)


@pytest.mark.parametrize("shape", [(), (1, 2), (1, 2, 3, 4), (0, 5, 5), (1, -3, 3), (2.0,)])
def test_a_bad_input_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="input_shape"):
        glsk.BoundedModule(nn.Linear(2, 2), shape)


def test_not_a_module() -> None:
    with pytest.raises(TypeError, match=r"net: expected an nn\.Module, got function"):
        glsk.BoundedModule(lambda x: x, (3,))


def test_slopes_of_one_activation_after_another_multiply() -> None:
    net = nn.Sequential(
        *(nn.Linear(2, 2), nn.LeakyReLU(0.5), nn.LeakyReLU(0.2)),
        *(nn.Linear(2, 2), nn.LeakyReLU(0.5), nn.ReLU(), nn.Linear(2, 2)),
    )
    assert build_chain(net, (2,)).leaks == (0.1, 0.0, 0.0)


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"padding": 1, "stride": (2, 3)}, {"divisor_override": 5}])
def test_an_average_pool_is_a_convolution(options: dict) -> None:
    """On a point every method gives the network's value."""
    net = nn.Sequential(nn.AvgPool2d((2, 3), **options), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(2, 1)).double()
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    lower, upper = glsk.BoundedModule(net, (3, 7, 8)).compute_bounds(x, eps=0.0, backend="reference")
    for bound in (lower, upper):
        torch.testing.assert_close(bound, net(x).flatten(1), rtol=1e-12, atol=1e-12)
