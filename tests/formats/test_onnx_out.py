"""What is written as ONNX computes what the network computes, says onnxruntime, and reads back the same."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import glsk
from glsk import models
from glsk.formats import onnx_bytes, read_onnx


def normed(layer):
    """Running statistics that are not the identity."""
    for i, part in enumerate((layer.running_mean, layer.running_var)):
        part.uniform_(i, i + 1, generator=torch.Generator().manual_seed(i))
    return layer.eval()


SHARED = nn.ReLU()
NETWORKS = {
    "linear": (nn.Linear(4, 3, bias=False), (4,)),
    "cnn3": (models.build("cnn3", mean=[0.1], std=[0.3]), (1, 28, 28)),
    "colour": (models.build("cnn5", (3, 8, 8), mean=[0.1, 0.2, 0.3], std=[0.3, 0.4, 0.5]), (3, 8, 8)),
    "everything": (
        nn.Sequential(
            nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), normed(nn.BatchNorm2d(4)), SHARED),
            nn.AvgPool2d(2, padding=1),
            nn.Identity(),
            nn.Conv2d(4, 3, (2, 3), stride=(2, 1), bias=False),
            nn.LeakyReLU(0.25),
            nn.Flatten(),
            nn.Dropout().eval(),
            nn.Linear(18, 5),
            normed(nn.BatchNorm1d(5, affine=False)),
            SHARED,
            nn.Linear(5, 3),
        ),
        (2, 6, 8),
    ),
    "image at the end": (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2, divisor_override=3)), (1, 6, 6)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_network_computes(tmp_path, name, dtype):
    net, shape = NETWORKS[name]
    net = net.to(dtype)
    content = onnx_bytes(net, shape)
    onnx.checker.check_model(content, full_check=True)
    if dtype == torch.float32:
        run, rtol = onnxruntime.InferenceSession(content).run, 1e-4
    else:  # onnxruntime has no convolution of float64
        model = onnx.load_model_from_string(content)
        model.opset_import[0].version = 15  # in older sets the reference takes every BatchNorm to be in training
        run, rtol = ReferenceEvaluator(model).run, 1e-6  # attributes are float32
    x = torch.rand(4, *shape, dtype=dtype)
    with torch.no_grad():
        expected = net(x).flatten(1)
    found = np.concatenate([run(None, {"x": row[None].numpy()})[0] for row in x])
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol / 10)
    if name != "image at the end":  # a divisor of its own is a factor that no layer after it takes
        path = tmp_path / "net.onnx"
        path.write_bytes(content)
        again = read_onnx(path)
        assert again.input_shape == shape
        with torch.no_grad():
            torch.testing.assert_close(again.network(x.double()).to(dtype), expected)


def test_weights_survive_to_the_bit(tmp_path):
    net = models.build("cnn3", seed=3)
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(net, torch.rand(2, 1, 28, 28)))
    again = read_onnx(tmp_path / "net.onnx", torch.float32).network
    for name, value in net.state_dict().items():
        assert again.state_dict()[name].equal(value)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(glsk.UnsupportedLayerError, match="Sigmoid"):
        onnx_bytes(nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), (4,))
    mixed = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2).double())
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.float64; expected float32 or float64 alone"):
        onnx_bytes(mixed, (4,))
    with pytest.raises(ValueError, match=r"torch\.bfloat16; expected float32"):
        onnx_bytes(nn.Linear(4, 3).bfloat16(), (4,))
