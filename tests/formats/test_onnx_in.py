"""Networks read from ONNX compute what onnxruntime computes, and can be bounded; the rest is refused by name."""

import gzip

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import glsk
from glsk.errors import DataError, MissingPackageError, UnsupportedLayerError
from glsk.formats import read_onnx
from glsk.verify.property import Property

RANDOM = np.random.RandomState(0)


def weights(*shape):
    return RANDOM.randn(*shape).astype(np.float32)


def node(op, *constants, first=False, **attributes):
    """An operator on the network's value and constants."""
    return op, constants, first, attributes


def write(path, shape, nodes, opset=13, batch=1, outputs=("y",)):
    made, held, value = [], [], "x"
    for i, (op, constants, first, attributes) in enumerate(nodes):
        names = [f"c{i}_{k}" for k in range(len(constants))]
        held += [numpy_helper.from_array(np.asarray(c), n) for c, n in zip(constants, names, strict=True)]
        inputs = [*names, value] if first else [value, *names]
        value = "y" if i == len(nodes) - 1 else f"v{i}"
        made.append(helper.make_node(op, inputs, [value], f"n{i}", **attributes))
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    graph = helper.make_graph(made, "g", *ends, held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def check(path, bounds=True):
    """The network that was read, held to onnxruntime on random inputs, and inside its bounds."""
    found = read_onnx(path)
    session = onnxruntime.InferenceSession(path)
    x = torch.rand(5, len(found.order))
    expected = [session.run(None, {"x": row.reshape(found.file_shape).numpy()})[0].reshape(-1) for row in x]
    got = found.network(found.to_network(x.double()))
    assert got.shape == (5, found.num_outputs)
    np.testing.assert_allclose(got.detach().numpy(), np.stack(expected), rtol=1e-4, atol=1e-5)
    assert found.to_file(found.to_network(x)).equal(x)
    bounded = glsk.BoundedModule(found.network, found.input_shape)
    lower, upper = bounded.compute_bounds(found.to_network(x.double()), eps=0.0, method="IBP")
    torch.testing.assert_close(lower, got, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(upper, got, rtol=1e-9, atol=1e-9)
    return found


CONV = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
IMAGE = (2, 6, 6)
FC = [node("Flatten"), node("Gemm", weights(4, 27), weights(4), transB=1)]
NETWORKS = {
    "gemm": ((6,), [node("Gemm", weights(6, 4), weights(4)), node("Relu"), node("Gemm", weights(3, 4), transB=1)]),
    "scaled gemm": ((6,), [node("Gemm", weights(6, 4), weights(1, 4), alpha=0.5, beta=2.0)]),
    "matmul": ((6,), [node("MatMul", weights(6, 4)), node("Add", weights(4), first=True), node("LeakyRelu", alpha=0.2),
                      node("MatMul", weights(4, 3))]),
    "column": ((6, 1), [node("MatMul", weights(4, 6), first=True), node("Add", weights(4, 1))]),
    "conv": (IMAGE, [node("Conv", weights(3, 2, 3, 3), weights(3), **CONV), node("Relu"), *FC]),
    "conv at the end": (IMAGE, [node("Conv", weights(3, 2, 3, 3), **CONV)]),
    "uneven padding": (IMAGE, [node("Conv", weights(3, 2, 3, 3), weights(3), pads=[0, 1, 1, 0], strides=[2, 2]), *FC]),
    "same padding": (IMAGE, [node("Conv", weights(3, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]), *FC]),
    "same lower": (IMAGE, [node("Conv", weights(3, 2, 2, 2), auto_pad="SAME_LOWER", strides=[2, 2]), *FC]),
    "valid": (IMAGE, [node("Conv", weights(3, 2, 4, 4), auto_pad="VALID"), *FC]),
    "pad": (IMAGE, [node("Pad", np.array([0, 0, 1, 0, 0, 0, 1, 2])), node("Conv", weights(3, 2, 4, 4), strides=[2, 2]),
                    *FC[:1], node("Gemm", weights(27, 4))]),
    "no pad": (IMAGE, [node("Pad", np.zeros(8, np.int64)), node("Conv", weights(3, 2, 3, 3), **CONV), *FC]),
    "pool": (IMAGE, [node("Conv", weights(3, 2, 1, 1), weights(3)), node("Relu"),
                     node("AveragePool", kernel_shape=[2, 2], strides=[2, 2]), *FC]),
    "padded pool": (IMAGE, [node("Conv", weights(3, 2, 1, 1), weights(3)),
                            node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
                                 count_include_pad=1), *FC]),
    "global pool": (IMAGE, [node("Conv", weights(3, 2, 1, 1)), node("GlobalAveragePool"), node("Flatten"),
                            node("MatMul", weights(3, 4))]),
    "normalised": (IMAGE, [node("Sub", weights(2, 1, 1)), node("Div", np.float32([[[0.3]], [[0.2]]])),
                           node("Conv", weights(3, 2, 3, 3), weights(3), **CONV), node("Relu"), *FC]),
    "scaled image": (IMAGE, [node("Mul", np.float32(1 / 255)), node("Conv", weights(3, 2, 3, 3), **CONV), *FC]),
    "mirrored": (IMAGE, [node("Sub", np.float32(1), first=True), node("Conv", weights(3, 2, 4, 4)), node("Flatten"),
                         node("MatMul", weights(27, 4))]),
    "every input its own": ((6,), [node("Sub", weights(6)), node("Mul", weights(6)), node("MatMul", weights(6, 3))]),
    "batch norm": (IMAGE, [node("Conv", weights(3, 2, 3, 3), weights(3), **CONV),
                           node("BatchNormalization", weights(3), weights(3), weights(3), weights(3) ** 2, epsilon=0.1),
                           node("Relu"), *FC,
                           node("BatchNormalization", weights(4), weights(4), weights(4), weights(4) ** 2)]),
    "batch norm at the input": (IMAGE, [
        node("BatchNormalization", weights(2) ** 2 + 1, weights(2), weights(2), weights(2) ** 2),
        node("Conv", weights(3, 2, 3, 3), **CONV), *FC]),
    "batch norm and more": ((4,), [node("MatMul", weights(4, 3)),
                                   node("BatchNormalization", weights(3), weights(3), weights(3), weights(3) ** 2),
                                   node("Mul", weights(3)), node("Sub", weights(3))]),
    "constants after a layer": (IMAGE, [node("Conv", weights(3, 2, 3, 3), **CONV), node("Mul", weights(1, 3, 1, 1)),
                                        node("Add", weights(3, 1, 1)), node("Relu"), *FC, node("Div", weights(4))]),
    "constants after a relu": (IMAGE, [node("Conv", weights(3, 2, 1, 1)), node("Relu"), node("Mul", weights(3, 1, 1)),
                                       node("Conv", weights(3, 3, 3, 3), **CONV), node("Relu"),
                                       node("Add", weights(3, 3, 3)), *FC]),
    "channels last": ((6, 6, 2), [node("Transpose", perm=[0, 3, 1, 2]), node("Conv", weights(3, 2, 3, 3), **CONV),
                                  node("Relu"), node("Transpose", perm=[0, 2, 3, 1]), *FC]),
    "flat image": ((72,), [node("Reshape", np.array([-1, 2, 6, 6])), node("Conv", weights(3, 2, 3, 3), **CONV),
                           node("Reshape", np.array([0, -1])), FC[1]]),
    "columns first": ((2, 3), [node("Transpose", perm=[0, 2, 1]), node("Mul", weights(3, 2)), node("Flatten"),
                               node("MatMul", weights(6, 3))]),
    "axes": ((1, 6), [node("Squeeze", np.array([1])), node("MatMul", weights(6, 3)), node("Unsqueeze", np.array([0])),
                      node("Identity"), node("Dropout"), node("Reshape", np.array([1, 3]))]),
    "transposed outputs": ((6,), [node("MatMul", weights(6, 6)), node("Reshape", np.array([2, 3])),
                                  node("Transpose"), node("Flatten", axis=0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_what_its_file_says(tmp_path, name):
    check(write(tmp_path / "net.onnx", *NETWORKS[name]))


def test_what_needs_no_folding_keeps_its_numbers_and_layers(tmp_path):
    shape, nodes = NETWORKS["batch norm"]
    found = read_onnx(write(tmp_path / "net.onnx", shape, nodes), torch.float32)
    assert [type(layer).__name__ for layer in found.network] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear", "BatchNorm1d",
    ]  # fmt: skip
    assert found.network[0].weight.equal(torch.from_numpy(nodes[0][1][0]))
    assert not found.network.training


def test_a_normalisation_stays_one(tmp_path):
    found = read_onnx(write(tmp_path / "net.onnx", *NETWORKS["normalised"]))
    assert isinstance(found.network[0], glsk.Normalize)
    torch.testing.assert_close(found.network[0].std, torch.tensor(np.float32([0.3, 0.2])).double(), rtol=1e-15, atol=0)


def test_inputs_that_are_transposed_carry_a_property_along(tmp_path):
    found = read_onnx(write(tmp_path / "net.onnx", *NETWORKS["channels last"]))
    assert found.input_shape == (2, 6, 6)
    lower = torch.arange(72.0)
    placed = found.arrange(Property(((lower, lower + 1),), ((torch.ones(1, 4), torch.zeros(1)),)))
    assert placed.boxes[0].lower.equal(lower.double().reshape(6, 6, 2).permute(2, 0, 1))
    with pytest.raises(ValueError, match="72 inputs and 4 outputs, the property is about 3 and 4"):
        found.arrange(Property(((torch.zeros(3), torch.ones(3)),), ((torch.ones(1, 4), torch.zeros(1)),)))


def test_any_batch_and_a_shape_that_is_computed(tmp_path):
    """As PyTorch exports x.view(x.size(0), -1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "s"),
        helper.make_node("Constant", [], ["zero"], "zero", value=numpy_helper.from_array(np.array(0))),
        helper.make_node("Gather", ["s", "zero"], ["n"], "n", axis=0),
        helper.make_node("Unsqueeze", ["n"], ["n1"], "n1", axes=[0]),
        helper.make_node("Constant", [], ["rest"], "rest", value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], "shape", axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "W"], ["y"], "y"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(weights(6, 2), "W")],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    assert check(path).input_shape == (1, 2, 3)


def test_a_file_may_be_compressed(tmp_path):
    path = write(tmp_path / "net.onnx", *NETWORKS["gemm"])
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for a, b in zip(read_onnx(packed).network.parameters(), read_onnx(path).network.parameters(), strict=True):
        assert a.equal(b)


GEMM = node("Gemm", weights(6, 3))
REFUSED = {
    "Sigmoid": ((6,), [GEMM, node("Sigmoid")]),
    "MaxPool": (IMAGE, [node("MaxPool", kernel_shape=[2, 2])]),
    "groups": (IMAGE, [node("Conv", weights(2, 1, 3, 3), group=2)]),
    "dilations": (IMAGE, [node("Conv", weights(2, 2, 3, 3), dilations=[2, 2])]),
    "weight \\[O, C, h, w\\]": ((2, 6), [node("Conv", weights(2, 2, 3))]),
    "takes 6 values": ((5,), [GEMM]),
    "in one row": ((2, 6), [node("MatMul", weights(6, 3))]),
    "before any affine layer": ((6,), [node("Relu"), GEMM]),
    "does not broadcast": ((6,), [node("Add", weights(4)), GEMM]),
    "divides by the network's value": ((6,), [node("Div", weights(6), first=True), GEMM]),
    "divides by zero": ((6,), [node("Div", np.float32(0)), GEMM]),
    "'c0_0' holds NaN": ((6,), [node("Gemm", np.full((6, 3), np.nan, np.float32))]),
    "only a Conv may follow a Pad": (IMAGE, [node("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1])), node("Flatten"), GEMM]),
    "only with zeros": (IMAGE, [node("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(1)), GEMM]),
    "count_include_pad": (IMAGE, [node("Conv", weights(3, 2, 1, 1)),
                                  node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), *FC]),
    "c1_0' is complex64": ((6,), [GEMM, node("Add", np.complex64([1, 2, 3]))]),
    "alpha: expected float, got bytes": ((6,), [GEMM, node("LeakyRelu", alpha="x")]),
    "alpha is nan": ((6,), [GEMM, node("LeakyRelu", alpha=float("nan"))]),
    "strides: expected whole numbers": (IMAGE, [node("Conv", weights(2, 2, 3, 3), strides=[1.5, 1.0])]),
    "expected whole numbers, got float32": ((6,), [node("Reshape", np.float32([1, 6])), GEMM]),
    "ends in an affine layer|end in an affine layer": ((6,), [GEMM, node("Relu")]),
    "no affine layer": ((6,), [node("Identity")]),
    "has no shape": ((6,), [node("Reshape", np.array([4, 4])), GEMM]),
    "only at the network's input": (IMAGE, [node("Conv", weights(2, 2, 1, 1)), node("Transpose", perm=[0, 1, 3, 2]),
                                            node("Conv", weights(2, 2, 1, 1))]),
    "before its zero padding": (IMAGE, [node("Conv", weights(2, 2, 1, 1)), node("Relu"), node("Add", np.float32(1)),
                                        node("Conv", weights(2, 2, 3, 3), **CONV)]),
    "cannot be folded": ((6,), [GEMM, node("Relu"), node("Add", np.float32(1)), node("Relu"),
                                 node("MatMul", weights(3, 2))]),
    "attribute 'axis' is not supported": ((6,), [GEMM, node("Relu", axis=1)]),
    "in inference": ((6,), [GEMM, node("BatchNormalization", weights(3), weights(3), weights(3), weights(3) ** 2,
                                       training_mode=1)]),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_bounded_is_refused_by_name(tmp_path, message):
    path = write(tmp_path / "net.onnx", *REFUSED[message])
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(str(path))


def test_other_graphs_are_refused(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(UnsupportedLayerError, match="operator set"):
        read_onnx(write(path, (6,), [GEMM], opset=6))
    with pytest.raises(UnsupportedLayerError, match=r"one input and one output, got \['x'\] and \['y', 'n0'\]"):
        read_onnx(write(path, (6,), [GEMM], outputs=("y", "n0")))
    with pytest.raises(UnsupportedLayerError, match="axis 1 has no size"):
        read_onnx(write(path, ("n",), [GEMM]))
    with pytest.raises(UnsupportedLayerError, match="output 'z' is not what its last node computes"):
        read_onnx(write(path, (6,), [GEMM], outputs=("z",)))
    model = onnx.load(write(path, (6,), [GEMM, node("Relu"), node("Gemm", weights(3, 3))]))
    model.graph.node[2].op_type = "Add"
    model.graph.node[2].input[1] = "x"
    onnx.save(model, path)
    with pytest.raises(UnsupportedLayerError, match=r"node 'n2' \(Add\): reads 'x', so that the network is no chain"):
        read_onnx(path)
    model.graph.node[2].input[1] = model.graph.node[2].input[0]
    onnx.save(model, path)
    with pytest.raises(UnsupportedLayerError, match=r"node 'n2' \(Add\): reads the network's value twice"):
        read_onnx(path)


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "net.onnx", (6,), [GEMM])
    good = path.read_bytes()
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 600
    for content in (good[:40], b"\xff" * 50, model.SerializeToString()):
        path.write_bytes(content)
        with pytest.raises((DataError, UnsupportedLayerError), match=r"net\.onnx"):
            read_onnx(path)
    with pytest.raises(OSError, match=r"none\.onnx"):
        read_onnx(tmp_path / "none.onnx")


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "net.onnx", (6,), [GEMM])
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(
        MissingPackageError, match=r"reading ONNX: the package onnx is not installed: pip install 'glsk\[verify\]'"
    ):
        read_onnx(path)
