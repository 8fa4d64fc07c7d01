"""The table of :mod:`tests.test_bad_calls`: calls that a hurried user makes, and what each must say.

A row is (id, call, error, words): ``error`` is raised with ``words`` in its message; for a call that is odd but valid
``error`` is None and ``words`` a function that checks what it returned.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import glsk
from glsk import models

Row = tuple[str, Callable[[], Any], type[Exception] | None, Any]

NET = nn.Sequential(
    glsk.Normalize([0.1, 0.2], [0.5, 0.7]),
    nn.Conv2d(2, 3, 2),
    nn.BatchNorm2d(3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(18, 4),
).eval()
SHAPE = (2, 3, 4)
BOUNDED = glsk.BoundedModule(NET, SHAPE)
FLAT = glsk.BoundedModule(nn.Linear(5, 3), 5)
X = torch.linspace(0, 1, 5 * 24).view(5, *SHAPE)
D = BOUNDED.num_parameters
STACKED = torch.func.stack_module_state([NET, NET, NET])


def _with(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


def _changed(**changes: Any) -> dict[str, Any]:
    """The named population with some entries replaced; ``__`` stands for a dot, None removes."""
    named = {**STACKED[0], **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in named.items() if value is not None}


def _nested() -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)


# Not real numbers held one by one on a device: what no tensor argument takes.
UNFIT: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "list": (lambda t: t.tolist(), TypeError, "tensor, got list"),
    "array": (lambda t: t.numpy(), TypeError, "tensor, got ndarray"),
    "a string": (lambda t: "0.1", TypeError, "tensor, got str"),
    "bool": (lambda t: t > 0, TypeError, "got torch.bool"),
    "complex": (lambda t: t + 0j, TypeError, "got torch.complex64"),
    "complex double": (lambda t: t.double() + 0j, TypeError, "got torch.complex128"),
    "sparse": (lambda t: t.to_sparse(), TypeError, "expected a dense tensor, got torch.sparse_coo"),
    "nested": (lambda t: _nested(), TypeError, "expected a dense tensor, got nested"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8), TypeError, "got torch.quint8"),
    "not initialised": (lambda t: nn.UninitializedParameter(), TypeError, "not initialised"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), TypeError, "got torch.float8_e4m3fn"),
}


def _unfit(name: str, good: Tensor, call: Callable[[Any], Any], skip: tuple[str, ...] = ()) -> Iterator[Row]:
    for what, (make, error, words) in UNFIT.items():
        if what not in skip:
            yield f"{name}: {what}", lambda make=make: call(make(good)), error, words


def _of_numbers(
    name: str, call: Callable[[Any], Any], error: type[Exception], words: str, none: bool = True
) -> Iterator[Row]:
    """What is no number, where one is meant."""
    values = {"bool": True, "numpy bool": np.True_, "string": "1", "list": [1], "complex": 1j}
    if none:
        values["None"] = None
    for what, value in {**values, "array": np.array(1.0), "decimal": Decimal(1), "module": NET}.items():
        yield f"{name}: {what}", lambda value=value: call(value), error, words


def rows() -> list[Row]:
    """All rows; an id stands once."""
    parts = (
        _making, _input, _eps, _clip, _box, _specification, _options, _params, _hidden, _margins, _loss, _normalize,
        _methods, _models,
    )  # fmt: skip
    found = [row for part in parts for row in part()]
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    assert not twice, twice
    return found


def _bounds(*args: Any, **options: Any) -> Any:
    return BOUNDED.compute_bounds(*args, **options)


def _shape(*wanted: int) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        assert tuple(found[0].shape) == wanted
        assert (found[0] <= found[1]).all()

    return check


def _as(wanted: Callable[[], Any]) -> Callable[[Any], None]:
    """The same bounds as those of a plain call."""

    def check(found: Any) -> None:
        for ours, theirs in zip(found, wanted(), strict=True):
            torch.testing.assert_close(ours, theirs, check_dtype=False)

    return check


def _plain(**options: Any) -> Callable[[Any], None]:
    return _as(lambda: _bounds(X, **{"eps": 0.5, **options}))


def _making() -> Iterator[Row]:
    make = glsk.BoundedModule
    for what, net in {
        "None": None,
        "a function": torch.relu,
        "the class": nn.ReLU,
        "weights": X,
        "layers": [NET],
    }.items():
        yield f"net: {what}", lambda net=net: make(net, SHAPE), TypeError, "net: expected an nn.Module"
    wrong_type = {
        "None": None,
        "float": 3.0,
        "string": "784",
        "bytes": b"784",
        "bool": True,
        "dict": {0: 5},
        "set": {5},
    }
    for what, shape in {**wrong_type, "array": np.zeros(3), "generator": (n for n in SHAPE), "module": NET}.items():
        yield f"input_shape: {what}", lambda s=shape: make(NET, s), TypeError, "input_shape must be"
    wrong = {
        "empty": (), "two axes": (3, 4), "with the batch": (5, 2, 3, 4), "zero": (0, 3, 4), "negative": (2, -3, 4),
        "float inside": (2, 3.0, 4), "bool inside": (True, 3, 4), "None inside": (None, 3, 4),
        "tensor inside": (X, 3, 4),
        "nested": ((2, 3, 4),), "zero alone": 0, "negative alone": -5, "long": tuple(range(1, 2000)),
        "a scalar tensor": torch.tensor(0.5), "one axis": torch.zeros(5), "a sequence of frames": torch.zeros(5, 2, 3),
    }  # fmt: skip
    for what, shape in wrong.items():
        yield f"input_shape: {what}", lambda s=shape: make(NET, s), ValueError, "input_shape must be"
    yield "input_shape: integers tensor", lambda: make(NET, torch.tensor([2, 3, 4])), TypeError, "got torch.int64"
    yield "input_shape: sparse", lambda: make(NET, X.to_sparse()), TypeError, "expected a dense tensor"
    yield "input_shape: other channels", lambda: make(NET, (3, 3, 4)), ValueError, "layer '0' (Normalize)"
    yield "input_shape: too small", lambda: make(NET, (2, 1, 4)), ValueError, "exceeds the padded input"
    yield "input_shape: other size", lambda: make(NET, (2, 3, 5)), ValueError, "layer '5' (Linear): expects [18]"
    yield "input_shape: flat", lambda: make(NET[1:], (24,)), ValueError, "layer '1' (Conv2d): expects [2, H, W]"

    def made(found: Any) -> None:
        assert found.input_shape == SHAPE

    good = {"list": [2, 3, 4], "numpy": tuple(np.array(SHAPE)), "Size": X.shape[1:], "batch": X, "double": X.double()}
    for what, shape in {**good, "an empty batch": X[:0], "meta batch": X.to("meta"), "channels last": X.mT.mT}.items():
        yield f"input_shape: {what} is fine", lambda s=shape: make(NET, s), None, made
    yield "input_shape: 784", lambda: make(nn.Linear(784, 2), 784).input_shape, None, lambda s: s == (784,)
    layers: dict[str, tuple[list[nn.Module], str]] = {
        "LazyLinear": ([nn.Flatten(), nn.LazyLinear(3)], "layer '1' (LazyLinear): it is not initialised"),
        "LazyConv2d": ([nn.LazyConv2d(3, 2)], "layer '0' (LazyConv2d): it is not initialised"),
        "Dropout": ([nn.Conv2d(2, 2, 2), nn.Dropout()], "layer '1' (Dropout): it must be in eval mode"),
        "Softmax": ([nn.Conv2d(2, 2, 2), nn.Softmax(1)], "layer '1' (Softmax)"),
        "Bilinear": ([nn.Bilinear(2, 2, 2)], "layer '0' (Bilinear)"),
        "Conv1d": ([nn.Conv1d(2, 2, 2)], "layer '0' (Conv1d)"),
        "BatchNorm training": ([nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2)], "layer '1' (BatchNorm2d)"),
        "GroupNorm": ([nn.Conv2d(2, 2, 2), nn.GroupNorm(1, 2)], "layer '1' (GroupNorm)"),
        "nothing": ([], "no affine layer"),
        "identity only": ([nn.Identity()], "no affine layer"),
        "ModuleList": ([nn.ModuleList([nn.Linear(2, 2)])], "layer '0' (ModuleList)"),
    }  # fmt: skip
    for what, (inner, words) in layers.items():
        yield f"net: {what}", lambda i=inner: make(nn.Sequential(*i), SHAPE), glsk.UnsupportedLayerError, words
    skipped = nn.Sequential(nn.Identity(), *NET[:4], nn.Dropout2d().eval(), nn.AlphaDropout().eval(), *NET[4:])
    yield "net: skipped layers", lambda: make(skipped, X).compute_bounds(X, eps=0.5), None, _plain()
    yield (
        "net: training Identity",
        lambda: make(nn.Sequential(nn.Identity(), NET), X)(X),
        None,
        lambda y: y.shape == (5, 4),
    )


def _input() -> Iterator[Row]:
    def call(x: Any) -> Any:
        return _bounds(x, eps=0.5)

    yield from _unfit("x", X, call)
    for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.uint8):
        yield f"x: {dtype}", lambda d=dtype: call(X.to(d)), TypeError, "x: expected float32 or float64"
    yield "x: meta", lambda: call(X.to("meta")), ValueError, "x: a tensor on the meta device"
    yield "x: None", lambda: call(None), ValueError, "give either x and eps"
    yield "x: double for a float net", lambda: call(X.double()), ValueError, "make them agree"
    shapes = {"one sample": X[0], "flat": X.flatten(1), "scalar": X[0, 0, 0, 0], "turned": X.mT, "more axes": X[None]}
    for what, x in {**shapes, "no sample": X[:0], "grey": X[:, :1]}.items():
        yield f"x: {what}", lambda x=x: call(x), ValueError, "x: "
    for value in (math.nan, math.inf, -math.inf):
        yield f"x: {value}", lambda v=value: call(_with(X, v)), ValueError, "x: holds NaN or infinity"
    yield "x: Parameter", lambda: call(nn.Parameter(X)), None, _plain()
    yield "x: conjugate's imaginary part", lambda: call(torch.complex(X, -X).conj().imag), None, _plain()
    yield "x: strided", lambda: call(X.repeat_interleave(2, 3)[..., ::2]), None, _plain()
    yield "x: inference", lambda: _inference(call), None, _plain()
    yield "x: one sample expanded", lambda: call(X[:1].expand(5, -1, -1, -1)), None, _shape(5, 4)


def _inference(call: Callable[[Any], Any]) -> Any:
    with torch.inference_mode():
        return call(X.clone())


def _eps() -> Iterator[Row]:
    def call(eps: Any) -> Any:
        return _bounds(X, eps=eps)

    yield from _of_numbers("eps", call, TypeError, "eps: expected a number", none=False)
    yield "eps: None", lambda: call(None), ValueError, "eps is required"
    yield from _unfit("eps tensor", torch.rand(5), call, skip=("list", "array", "a string"))
    numbers = {"negative": -0.1, "minus infinity": -math.inf, "infinity": math.inf, "NaN": math.nan, "huge": 10**400}
    for what, eps in {**numbers, "numpy NaN": np.float32("nan"), "a negative int": -1}.items():
        yield f"eps: {what}", lambda e=eps: call(e), ValueError, "eps: must be finite"
    for what, value in {"negative": -0.1, "NaN": math.nan, "infinity": math.inf}.items():
        yield (
            f"eps: a tensor with {what}",
            lambda v=value: call(_with(torch.rand(5), v)),
            ValueError,
            "eps: every value",
        )
    yield "eps: beyond float32", lambda: call(torch.tensor(1e300).double()), ValueError, "eps: every value"
    yield "eps: meta", lambda: call(torch.rand(5, device="meta")), ValueError, "eps: a tensor on the meta device"
    for shape in ((4,), (3,), (6,), (0,), (3, 4), (1, 1), (5, 1), (5, 2), (5, 2, 3, 5), (4, 1, 1, 1), (1, 5, 2, 3, 4)):
        yield f"eps: {shape}", lambda s=shape: call(torch.rand(s)), ValueError, "eps: shape"
    yield (
        "eps: flat, a sample or a feature",
        lambda: FLAT.compute_bounds(torch.rand(5, 5), eps=torch.rand(5)),
        ValueError,
        "give [5, 1] or [1, 5]",
    )
    yield (
        "eps: flat, one a feature",
        lambda: FLAT.compute_bounds(torch.rand(2, 5), eps=torch.rand(5)),
        None,
        _shape(2, 3),
    )
    yield (
        "eps: flat, one a sample",
        lambda: FLAT.compute_bounds(torch.rand(2, 5), eps=torch.rand(2)),
        None,
        _shape(2, 3),
    )
    good = {
        "float32": np.float32(0.5), "float64": np.float64(0.5), "fraction": Fraction(1, 2), "scalar": torch.tensor(0.5),
        "[1]": torch.tensor([0.5]), "[B]": torch.full((5,), 0.5), "[B, 1, 1, 1]": torch.full((5, 1, 1, 1), 0.5),
        "[C, H, W]": torch.full(SHAPE, 0.5), "[C, 1, 1]": torch.full((2, 1, 1), 0.5), "half": torch.tensor(0.5).half(),
        "x's shape": torch.full_like(X, 0.5), "wanting a gradient": torch.tensor(0.5, requires_grad=True),
    }  # fmt: skip
    for what, eps in good.items():
        yield f"eps: {what} is fine", lambda e=eps: call(e), None, _plain()
    yield "eps: an int", lambda: call(1), None, _plain(eps=1.0)
    yield "eps: numpy int", lambda: call(np.int64(1)), None, _plain(eps=1.0)
    yield "eps: an int tensor", lambda: call(torch.tensor(1)), None, _plain(eps=1.0)
    yield "eps: 0", lambda: call(0), None, _plain(eps=0.0)


def _clip() -> Iterator[Row]:
    def call(clip: Any) -> Any:
        return _bounds(X, eps=0.5, clip=clip)

    wrong = {
        "a number": 1.0, "empty": (), "one end": (0.0,), "three ends": (0.0, 0.5, 1.0), "strings": ("0", "1"),
        "reversed": (1.0, 0.0), "one point": (0.5, 0.5), "NaN": (0.0, math.nan), "NaN first": (math.nan, 1.0),
        "infinity": (0.0, math.inf), "minus infinity": (-math.inf, 1.0), "bools": (False, True), "huge": (0, 10**400),
        "None ends": (None, 1.0), "tensors": (torch.tensor(0.0), torch.tensor(1.0)), "complex": (0.0, 1j), "text": "01",
        "a tensor": torch.tensor([0.0, 1.0]), "an array": np.array([0.0, 1.0]), "images": (X, X + 1),
        "a set": {0.0, 1.0},
        "numpy bools": (np.False_, np.True_), "a dict": {"min": 0.0, "max": 1.0},
    }  # fmt: skip
    for what, clip in wrong.items():
        yield f"clip: {what}", lambda c=clip: call(c), ValueError, "clip: expected (low, high)"
    yield "clip: x outside", lambda: call((5.0, 6.0)), ValueError, "x lies outside the clipping range"
    for what, clip in {"ints": (0, 1), "list": [0.0, 1.0], "numpy": (np.float32(0), np.int64(1))}.items():
        yield f"clip: {what} is fine", lambda c=clip: call(c), None, _plain(clip=(0.0, 1.0))


def _box() -> Iterator[Row]:
    def call(**ends: Any) -> Any:
        return _bounds(**{"x_L": X, "x_U": X + 1, **ends})

    yield from _unfit("x_L", X, lambda x: call(x_L=x))
    yield from _unfit("x_U", X, lambda x: call(x_U=x))
    for end in ("x_L", "x_U"):
        yield f"{end}: missing", lambda e=end: call(**{e: None}), ValueError, "both x_L and x_U"
        yield f"{end}: meta", lambda e=end: call(**{e: X.to("meta")}), ValueError, f"{end}: a tensor on the meta device"
        yield f"{end}: NaN", lambda e=end: call(**{e: _with(X, math.nan)}), ValueError, f"{end}: holds NaN"
        yield f"{end}: infinity", lambda e=end: call(**{e: _with(X, math.inf)}), ValueError, f"{end}: holds NaN"
        yield f"{end}: fewer samples", lambda e=end: call(**{e: X[:4]}), ValueError, "must agree in shape"
        yield f"{end}: flat", lambda e=end: call(**{e: X.flatten(1)}), ValueError, f"{end}: expected [B, 2, 3, 4]"
        yield f"{end}: double", lambda e=end: call(**{e: X.double()}), ValueError, "must agree in shape, dtype"
        yield f"{end}: with x", lambda e=end: _bounds(X, eps=0.5, **{e: X}), ValueError, "not both"
    yield "box: swapped", lambda: call(x_L=X + 1, x_U=X), ValueError, "x_L > x_U"
    yield "box: one value swapped", lambda: call(x_L=_with(X, 9.0)), ValueError, "x_L > x_U"
    yield "box: eps too", lambda: call(eps=0.5), ValueError, "eps and clip belong to x"
    yield "box: clip too", lambda: call(clip=(0, 1)), ValueError, "eps and clip belong to x"
    yield "box: x without eps", lambda: _bounds(X), ValueError, "eps is required"
    yield "box: nothing", lambda: _bounds(), ValueError, "give either x and eps"
    yield "box: a point", lambda: call(x_U=X), None, _plain(eps=0.0)


def _specification() -> Iterator[Row]:
    good = torch.eye(4)[:2]

    def call(C: Any) -> Any:
        return _bounds(X, eps=0.5, C=C)

    yield from _unfit("C", good, call)
    shapes = ((4,), (), (2, 3), (5, 2, 3), (4, 2, 4), (1, 2, 4), (0, 4), (5, 0, 4), (2, 0), (1, 5, 2, 4))
    for shape in shapes:
        yield f"C: {shape}", lambda s=shape: call(torch.zeros(s)), ValueError, "C: expected [5, S, 4] or [S, 4]"
    for value in (math.nan, math.inf):
        yield f"C: {value}", lambda v=value: call(_with(good, v)), ValueError, "C: holds NaN or infinity"
    yield (
        "C: beyond float32",
        lambda: call(good.double() * 1e300),
        ValueError,
        "C: holds NaN or infinity in torch.float32",
    )
    yield "C: meta", lambda: call(good.to("meta")), ValueError, "C is on meta, the input on cpu"
    yield "C: a method's name", lambda: _bounds(X, eps=0.5, C="CROWN"), TypeError, "C: expected a tensor, got str"
    yield "C: labels", lambda: call(torch.arange(5)), ValueError, "C: expected [5, S, 4]"
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.uint8):
        yield f"C: {dtype} is fine", lambda d=dtype: call(good.to(d)), None, _plain(C=good)
    yield "C: one a sample", lambda: call(good.expand(5, 2, 4)), None, _plain(C=good)
    yield "C: negated lazily", lambda: call(torch.complex(good, -good).conj().imag), None, _plain(C=good)
    yield "C: all zeros", lambda: call(torch.zeros(1, 4)), None, lambda found: found[0].abs().max() == 0


def _options() -> Iterator[Row]:
    def call(**options: Any) -> Any:
        return _bounds(X, eps=0.5, **options)

    for name in ("prune", "bound_upper", "check_finite"):
        for value in ("no", 1, 0, None, 1.0, torch.tensor(True), np.array([True]), []):
            yield (
                f"{name}: {value!r}",
                lambda n=name, v=value: call(**{n: v}),
                TypeError,
                f"{name}: expected True or False",
            )
    for name in ("prune", "check_finite"):
        yield f"{name}: numpy bool is fine", lambda n=name: call(**{n: np.False_}), None, _plain(**{name: False})
    yield "bound_upper: numpy bool is fine", lambda: call(bound_upper=np.False_)[1], None, lambda upper: upper is None
    yield from _of_numbers("memory_limit", lambda m: call(memory_limit=m), TypeError, "memory_limit: expected a whole")
    for value in (1e9, np.float64(1e9), Fraction(4, 1), torch.tensor(1 << 30), math.inf):
        yield (
            f"memory_limit: {value!r}",
            lambda v=value: call(memory_limit=v),
            TypeError,
            "memory_limit: expected a whole",
        )
    for value in (0, -1, np.int64(0)):
        yield (
            f"memory_limit: {value!r}",
            lambda v=value: call(memory_limit=v),
            ValueError,
            "memory_limit: expected a pos",
        )
    for value in (1, np.int64(1 << 30), np.uint8(255), 1 << 80):
        yield f"memory_limit: {value!r} is fine", lambda v=value: call(memory_limit=v), None, _plain()
    for value in (None, 3, b"cpu", torch.device("cpu"), ["cpu"]):
        yield f"backend: {value!r}", lambda v=value: call(backend=v), TypeError, "backend: expected a string"
    for value in ("", "gpu", "cuda:0", "cpu ", "C++"):
        yield f"backend: {value!r}", lambda v=value: call(backend=v), ValueError, "backend: unknown"
    yield "backend: AUTO is fine", lambda: call(backend="AUTO"), None, _plain()
    for value in (None, 3, b"IBP", ["IBP"], nn.ReLU()):
        yield f"method: {value!r}", lambda v=value: call(method=v), TypeError, "method: expected a string"
    for value in ("", "CROWNN", "IBP+CROWN", "forward", " IBP"):
        yield f"method: {value!r}", lambda v=value: call(method=v), ValueError, "method: unknown"


def _params() -> Iterator[Row]:
    params, buffers = STACKED
    flat = torch.randn(3, D, generator=torch.Generator().manual_seed(0))

    def call(given: Any, **options: Any) -> Any:
        return _bounds(X, eps=0.5, params=given, **options)

    yield from _unfit("params", flat, call, skip=("list", "array", "a string"))
    wrong = {
        "list": [1.0],
        "string": "weights",
        "number": 3,
        "array": flat.numpy(),
        "module": NET,
        "members": [NET, NET],
    }
    triple = (params, buffers, {})
    more = {
        "the parameters": list(NET.parameters()),
        "a triple": triple,
        "tensors": (flat, flat),
        "a state": {"a": 1.0},
    }
    for what, given in {**wrong, **more, "dict of arrays": {k: v.detach().numpy() for k, v in params.items()}}.items():
        yield f"params: {what}", lambda g=given: call(g), TypeError, "params: expected a tensor [P, D]"
    yield "params: half a pair", lambda: call((params, None)), TypeError, "params: expected a tensor [P, D]"
    for shape in ((D,), (3, D + 1), (3, D - 1), (0, D), (1, 3, D), (D, 3), ()):
        yield f"params: {shape}", lambda s=shape: call(torch.zeros(s)), ValueError, f"params: expected [P, {D}]"
    yield "params: double", lambda: call(flat.double()), ValueError, "make them agree"
    yield "params: half", lambda: call(flat.half()), TypeError, "params: expected float32 or float64"
    yield "params: meta", lambda: call(flat.to("meta")), ValueError, "torch.float32 on meta"
    for value in (math.nan, -math.inf):
        yield f"params: {value}", lambda v=value: call(_with(flat, v)), ValueError, "'5.bias' holds NaN or infinity"
    weight, name = params["5.weight"], "params['5.weight']"
    entries: dict[str, tuple[Any, type[Exception], str]] = {
        "no members": (weight[0], ValueError, name),
        "one member": (weight[:1], ValueError, name),
        "turned": (weight.mT, ValueError, name),
        "double": (weight.double(), ValueError, f"{name}: torch.float64"),
        "integers": (weight.long(), ValueError, f"{name}: torch.int64"),
        "complex": (weight + 0j, ValueError, f"{name}: torch.complex64"),
        "meta": (weight.to("meta"), ValueError, f"{name}: torch.float32 on meta"),
        "sparse": (weight.detach().to_sparse(), TypeError, f"{name}: expected a dense tensor"),
        "nested": (_nested(), TypeError, f"{name}: expected a dense tensor"),
        "not initialised": (nn.UninitializedParameter(), TypeError, f"{name}: the tensor is not initialised"),
        "missing": (None, ValueError, "missing ['5.weight']"),
        "a number": (1.0, TypeError, "params: expected"),
        "NaN": (_with(weight.detach(), math.nan), ValueError, "'5.weight' holds NaN"),
    }
    for what, (value, error, words) in entries.items():
        yield f"params, an entry: {what}", lambda v=value: call(_changed(**{"5__weight": v})), error, words
    yield (
        "params, an entry: unexpected",
        lambda: call(_changed(fc__weight=weight)),
        ValueError,
        "unexpected ['fc.weight']",
    )
    yield (
        "params, names: all others",
        lambda: call({f"net.{k}": v for k, v in params.items()}),
        ValueError,
        "and 3 more]",
    )
    yield "params, names: numbers", lambda: call({1: weight}), ValueError, "unexpected [1]"
    yield "params: empty dict", lambda: call({}), ValueError, "missing ["
    yield "params, no member", lambda: call({k: v[:0] for k, v in params.items()}), ValueError, "same P >= 1"
    yield "params: twice", lambda: call((params, params)), ValueError, "both dicts hold"
    mean, var = buffers["2.running_mean"], buffers["2.running_var"]
    yield (
        "buffers: a mean alone",
        lambda: call(_changed(**{"2__running_mean": mean})),
        ValueError,
        "missing ['2.running_var",
    )
    statistics = {"2.running_mean": mean, "2.running_var": var}
    off: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
        "features": ({"2.running_mean": mean[:, :2]}, ValueError, "params['2.running_mean']: expected [P, 3]"),
        "members": ({"2.running_var": var[:2]}, ValueError, "params['2.running_var']: expected [P, 3]"),
        "unstacked": ({"2.running_var": var[0]}, ValueError, "params['2.running_var']: expected [P, 3]"),
        "double": ({"2.running_var": var.double()}, ValueError, "params['2.running_var']: torch.float64"),
        "a negative variance": ({"2.running_var": -var}, ValueError, "'2.running_var': running statistics"),
        "NaN": ({"2.running_mean": _with(mean, math.nan)}, ValueError, "'2.running_mean' holds NaN"),
        "another mean": ({"0.mean": buffers["0.mean"] + 1}, ValueError, "params['0.mean']: glsk.Normalize is one"),
        "another std": ({"0.std": _with(buffers["0.std"], 9.0)}, ValueError, "params['0.std']: glsk.Normalize is one"),
        "a count of another shape": ({"2.num_batches_tracked": torch.zeros(2)}, ValueError, "num_batches_tracked'"),
        "an unknown name": ({"2.mean": mean}, ValueError, "unexpected ['2.mean']"),
    }
    for what, (changes, error, words) in off.items():
        yield f"buffers: {what}", lambda c=changes: call((params, {**statistics, **c})), error, words
    own = _as(lambda: tuple(bound.expand(3, 5, 4) for bound in _bounds(X, eps=0.5)))
    for what, given in {"pair": STACKED, "list pair": list(STACKED), "merged": {**params, **buffers}}.items():
        yield f"params: {what} is fine", lambda g=given: call(g), None, own
    yield "params: statistics alone beside", lambda: call((params, statistics)), None, own
    yield "params: parameters alone", lambda: call(params), None, own
    yield "params: an empty second dict", lambda: call((params, {})), None, own
    yield "params: a negated view", lambda: call(torch.complex(flat, -flat).conj().imag), None, _plain(params=flat)
    huge = torch.full((1, D), 3e38)
    yield "params: overflow", lambda: call(huge), glsk.NumericalError, "overflow the dtype"
    yield "params: overflow by IBP", lambda: call(huge, method="IBP"), glsk.NumericalError, "overflow the dtype"


def _hidden() -> Iterator[Row]:
    def call(x: Any = X, **options: Any) -> Any:
        return BOUNDED.intermediate_bounds(x, **{"eps": 0.5, **options})

    yield "hidden: x", lambda: call(X[0]), ValueError, "x: expected [B, 2, 3, 4]"
    yield "hidden: complex eps", lambda: call(eps=torch.tensor(0.5j)), TypeError, "eps: expected"
    yield "hidden: clip", lambda: call(clip=(1, 0)), ValueError, "clip: expected"
    yield "hidden: method", lambda: call(method="zonotope"), ValueError, "method: unknown"
    yield "hidden: backend", lambda: call(backend="gpu"), ValueError, "backend: unknown"
    yield "hidden: params", lambda: call(params=torch.zeros(D)), ValueError, "params: expected [P"
    yield "hidden: memory_limit", lambda: call(memory_limit=0), ValueError, "memory_limit"
    yield "hidden: check_finite", lambda: call(check_finite=1), TypeError, "check_finite: expected True or False"
    yield "hidden: both", lambda: call(x_L=X), ValueError, "not both"
    yield "hidden: overflow", lambda: call(params=torch.full((1, D), 3e38)), glsk.NumericalError, "overflow the dtype"
    yield "hidden: numpy eps", lambda: call(eps=np.float32(0.5))["1"], None, _shape(5, 18)


def _margins() -> Iterator[Row]:
    y, margins = torch.tensor([1, 3]), glsk.margins
    yield from _unfit("margins", torch.tensor([1.0, 3.0]), margins)
    for dtype in (torch.float32, torch.float16):
        yield f"margins: {dtype}", lambda d=dtype: margins(y.to(d)), TypeError, "y: expected an integer tensor"
    yield "margins: a number", lambda: margins(3), TypeError, "y: expected an integer tensor, got int"
    yield "margins: meta", lambda: margins(y.to("meta")), ValueError, "y: a tensor on the meta device"
    for shape in ((), (1, 2), (0,)):
        yield f"margins: {shape}", lambda s=shape: margins(torch.zeros(s).long()), ValueError, "y: expected [B]"
    labels = {"negative": [-1], "too large": [10], "one of many": [0, 5, 10], "far": [2**62]}
    for what, values in labels.items():
        yield f"margins: {what}", lambda v=values: margins(torch.tensor(v)), ValueError, "labels must lie in [0, 10)"
    beyond = torch.tensor([2**64 - 1], dtype=torch.uint64)
    yield "margins: beyond int64", lambda: margins(beyond), ValueError, "labels must lie in"
    yield from _of_numbers("num_classes", lambda k: margins(y, k), TypeError, "num_classes: expected a whole number")
    for value in (4.0, math.nan, torch.tensor(4), np.float32(4)):
        yield (
            f"num_classes: {value!r}",
            lambda v=value: margins(y, v),
            TypeError,
            "num_classes: expected a whole number",
        )
    for value in (1, 0, -4):
        yield f"num_classes: {value!r}", lambda v=value: margins(y, v), ValueError, "num_classes: expected at least 2"
    yield "check_labels: 1", lambda: margins(y, check_labels=1), TypeError, "check_labels: expected True or False"
    wanted = margins(y, 4)
    yield "num_classes: numpy is fine", lambda: margins(y, np.int64(4)), None, lambda C: torch.equal(C, wanted)
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.uint64):
        yield f"margins: {dtype} is fine", lambda d=dtype: margins(y.to(d), 4), None, lambda C: torch.equal(C, wanted)


def _loss() -> Iterator[Row]:
    good = torch.rand(3, 5, 9)
    loss = glsk.robust_cross_entropy
    yield from _unfit("loss", good, loss)
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        yield f"loss: {dtype}", lambda d=dtype: loss(good.to(d)), TypeError, "margin_lower: expected float32 or float64"
    yield "loss: meta", lambda: loss(good.to("meta")), ValueError, "margin_lower: a tensor on the meta device"
    yield "loss: both bounds", lambda: loss((good, good)), TypeError, "margin_lower: expected a tensor, got tuple"
    for shape in ((), (9,), (1, 3, 5, 9), (0, 5, 9), (3, 0, 9), (3, 5, 0), (0, 9)):
        yield f"loss: {shape}", lambda s=shape: loss(torch.zeros(s)), ValueError, "margin_lower: expected [P, B, S]"
    yield "loss: labels second", lambda: loss(good, torch.arange(5)), TypeError, "backend: expected a string"
    yield "loss: backend", lambda: loss(good, "gpu"), ValueError, "backend: unknown"
    yield "loss: None", lambda: loss(None), TypeError, "margin_lower: expected a tensor, got NoneType"
    vacuous = torch.full((1, 9), -math.inf)
    yield "loss: no bound at all", lambda: loss(vacuous), None, lambda found: found == math.inf
    yield "loss: NaN stays", lambda: loss(torch.full((1, 9), math.nan)), None, lambda found: found.isnan().all()
    negated = torch.complex(good, -good).conj().imag
    yield "loss: negated lazily", lambda: loss(negated), None, lambda found: torch.allclose(found, loss(good))


def _normalize() -> Iterator[Row]:
    make = glsk.Normalize
    wrong = {"None": None, "string": "0.1", "strings": ["0.1"], "bool": True, "bools": [True], "complex": [0.1j]}
    ragged = {"ragged": [[0.1], [0.1, 0.2]], "module": NET, "dict": {"mean": 0.1}, "bool tensor": torch.tensor([True])}
    tensors = {"complex tensor": torch.tensor([0.1j]), "sparse": torch.rand(2).to_sparse()}
    for what, mean in {**wrong, **ragged, **tensors}.items():
        yield f"Normalize: mean {what}", lambda m=mean: make(m, 1.0), TypeError, "Normalize: mean"
        yield f"Normalize: std {what}", lambda m=mean: make(0.0, m), TypeError, "Normalize: std"
    yield "Normalize: meta", lambda: make(torch.rand(1, device="meta"), 1.0), ValueError, "Normalize: mean"
    for std in (0.0, -1.0, math.nan, math.inf, 1e-60, 1e60):
        yield f"Normalize: std {std}", lambda s=std: make(0.0, s), ValueError, "std positive"
    for mean in (math.nan, math.inf):
        yield f"Normalize: mean {mean}", lambda m=mean: make(m, 1.0), ValueError, "must be finite"
    yield "Normalize: nothing", lambda: make([], []), ValueError, "no channel is given"
    yield "Normalize: lengths", lambda: make([0.0, 0.0], [1.0]), ValueError, "mean has 2 channels, std has 1"
    good = {"numpy": np.float32(0.5), "array": np.array([0.5]), "tensor": torch.tensor(0.5), "int": 1, "tuple": (0.5,)}
    for what, value in good.items():
        yield f"Normalize: {what} is fine", lambda v=value: make(v, v), None, lambda layer: layer.mean.shape == (1,)


def _methods() -> Iterator[Row]:
    for value in (None, 3, b"IBP", ("IBP",), True, X):
        what = type(value).__name__
        yield (
            f"canonical_method: {what}",
            lambda v=value: glsk.canonical_method(v),
            TypeError,
            "method: expected a string",
        )
    for value in ("", "ibp ", "CROWN_IBP", "box"):
        yield f"canonical_method: {value!r}", lambda v=value: glsk.canonical_method(v), ValueError, "method: unknown"
    yield "canonical_method: any case", lambda: glsk.canonical_method("deeppoly"), None, lambda name: name == "CROWN"


def _models() -> Iterator[Row]:
    build = models.build
    for value in (None, 3, b"cnn3", ["cnn3"]):
        yield f"build: {value!r}", lambda v=value: build(v), TypeError, "model: expected a name"
    for value in ("", "cnn", "resnet" * 200):
        yield f"build: {value[:9]!r}", lambda v=value: build(v), ValueError, "model: unknown"
    for value in (None, 3.0, "28"):
        yield f"build: shape {value!r}", lambda v=value: build("cnn3", v), TypeError, "input_shape must be"
    for value in (784, (784,), (1, 7, 28), (1, 28, 7)):
        yield f"build: shape {value!r}", lambda v=value: build("cnn3", v), ValueError, "at least 8x8"
    for value in ((1, 28), (0, 28, 28), (1, 28, 28.0), (1, 1, 28, 28)):
        yield f"build: shape {value!r}", lambda v=value: build("cnn3", v), ValueError, "input_shape must be"
    yield from _of_numbers(
        "build: num_classes", lambda k: build("cnn3", num_classes=k), TypeError, "num_classes: expected"
    )
    yield from _of_numbers("build: seed", lambda s: build("cnn3", seed=s), TypeError, "seed: expected a whole number")
    yield "build: no class", lambda: build("cnn3", num_classes=0), ValueError, "num_classes: expected at least 1"
    yield "build: seed -1", lambda: build("cnn3", seed=-1), ValueError, "seed: expected at least 0"
    yield "build: seed 2**64", lambda: build("cnn3", seed=2**64), ValueError, "seed: expected at most 64 bits"
    yield "build: mean alone", lambda: build("cnn3", mean=[0.1]), ValueError, "mean and std come together"
    yield "build: std alone", lambda: build("cnn3", std=[0.1]), ValueError, "mean and std come together"
    yield "build: three means", lambda: build("cnn3", mean=[0.1] * 3, std=[1.0] * 3), ValueError, "the input has 1"
    yield "build: no std", lambda: build("cnn3", mean=[0.1], std=[0.0]), ValueError, "std positive"
    yield (
        "build: numpy classes",
        lambda: build("cnn3", num_classes=np.int64(3)),
        None,
        lambda net: net[-1].out_features == 3,
    )
    yield (
        "build: one mean for all",
        lambda: build("CNN5", (3, 32, 32), mean=[0.1], std=[1.0]),
        None,
        lambda net: len(net) == 11,
    )
