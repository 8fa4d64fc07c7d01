"""``BoundedModule``: an ``nn.Module`` whose outputs can be bounded over boxes, for a whole population of weights."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from glsk import backends, bounds, box, population, tiling, workspace
from glsk.bounds import Bounds, Query
from glsk.errors import NumericalError
from glsk.network import Chain, build_chain
from glsk.population import Params


class BoundedModule:
    """Sound bounds of a ReLU network, batched over a population of weight sets.

    Args:
        net: an ``nn.Sequential`` (nested ones too) of Conv2d, Linear, ReLU, Flatten, ``glsk.Normalize`` and BatchNorm
            in eval mode after an affine layer, ending in an affine layer.
        input_shape: the shape of one sample, (channels, height, width) or (features,).

    Raises:
        glsk.UnsupportedLayerError: naming the first layer that cannot be bounded, and what is supported.
        ValueError: if a layer does not fit the shape that reaches it.

    The module is read, never changed: with ``params`` omitted its current weights are bounded.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected an nn.Module, got {type(net).__name__}")
        self.net = net
        self.chain: Chain = build_chain(net, tuple(input_shape))

    @property
    def num_parameters(self) -> int:
        """D, the length of one flat member."""
        return sum(p.numel() for p in self.net.parameters())

    def compute_bounds(
        self,
        x: Tensor | None = None,
        *,
        eps: float | Tensor | None = None,
        clip: tuple[float, float] | None = None,
        x_L: Tensor | None = None,
        x_U: Tensor | None = None,
        C: Tensor | None = None,
        method: str = "CROWN",
        params: Params | None = None,
        backend: str = "auto",
        prune: bool = True,
        bound_upper: bool = True,
        memory_limit: int = 1 << 30,
        check_finite: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Lower and upper bounds of C f(x) over a box around every sample, for every member of a population.

        Args:
            x: samples [B, *input_shape], float32 or float64, in data units; with ``eps``, the L-infinity radius (a
                number, or a tensor that broadcasts to x), and ``clip``, the data range the ball is cut to.
            x_L, x_U: instead of x, any box, [B, *input_shape] each.
            C: specification [B, S, K] or [S, K], rows of linear functions of the K logits (``glsk.margins``); None
                bounds the logits.
            method: "IBP", "HBox", "CROWN-IBP" or "CROWN" (= "DeepPoly"), any case (paper, §2.2).
            params: weights [P, D] in ``module.parameters()`` order, or a dict name -> [P, *shape]; None is the module's
                own.
            backend: "auto", "reference", "cpu", "triton" or "cuda".
            prune: let a hidden unit that a cheaper sound bound proves stable keep that bound (CROWN only). False gives
                the plain domain exactly.
            bound_upper: False leaves the upper bound out (None), which halves the last pass.
            memory_limit: bytes of scratch memory, beside inputs and outputs, that the call may use. A GPU backend
                refuses a limit too small for one sample of one member; a CPU backend computes them one by one.
            check_finite: check inputs, weights and bounds for NaN and infinity (on a GPU this waits for the device).

        Returns:
            lower, upper: [P, B, S], or [B, S] with ``params`` omitted; x's dtype and device.

        Raises:
            TypeError, ValueError: bad arguments, before any work.
            glsk.BackendUnavailableError: the backend cannot run here, or not for this device or dtype.
            glsk.NumericalError: a bound is NaN (the weights or the box overflow).
        """
        method = bounds.canonical_method(method)
        query = self._query(x, eps, clip, x_L, x_U, C, params, backend, prune, bound_upper, memory_limit, check_finite)
        members, samples = query.population.size, query.x_L.shape[1]
        rows = query.layers[-1].out_features if query.C is None else query.C.shape[1]
        whole = [tiling.Tile(0, members, 0, samples)]  # needs no memory but a thread's scratch
        tiles, need = (whole, None) if bounds.in_one_op(method, query) else self._tiles(query, memory_limit)
        lower = query.x_L.new_empty(members, samples, rows)
        upper = torch.empty_like(lower) if bound_upper else None
        for tile in tiles:
            part = slice(tile.p0, tile.p1), slice(tile.b0, tile.b1)
            with _granted(need, tile, memory_limit):
                found = bounds.output_bounds(method, _cut(query, tile))
                lower[part] = found[0]
                if upper is not None:
                    upper[part] = found[1]
                del found  # before the next tile's bounds are made
        if check_finite:
            _check_bounds(lower, upper)
        if params is None:
            return lower[0], None if upper is None else upper[0]
        return lower, upper

    def intermediate_bounds(
        self,
        x: Tensor | None = None,
        *,
        eps: float | Tensor | None = None,
        clip: tuple[float, float] | None = None,
        x_L: Tensor | None = None,
        x_U: Tensor | None = None,
        method: str = "CROWN",
        params: Params | None = None,
        backend: str = "auto",
        memory_limit: int = 1 << 30,
        check_finite: bool = True,
    ) -> dict[str, Bounds]:
        """Bounds of every pre-activation (the input of a ReLU), never pruned.

        Args: as :meth:`compute_bounds`.

        Returns:
            name of the affine layer -> (lower, upper), each [P, B, n], or [B, n] with ``params`` omitted; the n units
            of a convolution in channel, row, column order.

        Raises: as :meth:`compute_bounds`.
        """
        relaxation = bounds.get(method)
        query = self._query(x, eps, clip, x_L, x_U, None, params, backend, False, True, memory_limit, check_finite)
        members, samples = query.population.size, query.x_L.shape[1]
        tiles, need = self._tiles(query, memory_limit)
        found = {
            layer.name: tuple(query.x_L.new_empty(members, samples, layer.geometry.out_features) for _ in range(2))
            for layer in self.chain.layers
            if layer.geometry.relu
        }
        for tile in tiles:
            part = slice(tile.p0, tile.p1), slice(tile.b0, tile.b1)
            inner = islice(relaxation(_cut(query, tile)), query.last)
            with _granted(need, tile, memory_limit):
                for layer, (lower, upper) in zip(self.chain.layers, inner, strict=False):
                    if layer.geometry.relu:
                        found[layer.name][0][part], found[layer.name][1][part] = lower, upper
            del inner
        result: dict[str, Bounds] = {}
        for name, (lower, upper) in found.items():
            if check_finite:
                _check_bounds(lower, upper)
            result[name] = (lower[0], upper[0]) if params is None else (lower, upper)
        return result

    def _query(
        self,
        x: Tensor | None,
        eps: float | Tensor | None,
        clip: tuple[float, float] | None,
        x_L: Tensor | None,
        x_U: Tensor | None,
        C: Tensor | None,
        params: Params | None,
        backend: str,
        prune: bool,
        bound_upper: bool,
        memory_limit: int,
        check_finite: bool,
    ) -> Query:
        """Everything that is checked before any work, in one place."""
        backends.validate(backend)
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int):
            raise TypeError(f"memory_limit: expected a whole number of bytes, got {type(memory_limit).__name__}")
        if memory_limit < 1:
            raise ValueError(f"memory_limit: expected a positive number of bytes, got {memory_limit}")
        lower, upper = box.resolve(self.chain, x, eps, clip, x_L, x_U, check_finite)
        named = population.resolve(self.chain, self.net, params)
        for name, value in named.items():
            if value.dtype != lower.dtype or value.device != lower.device:
                raise ValueError(
                    f"{name!r} is {value.dtype} on {value.device}, the input is {lower.dtype} on {lower.device}; "
                    "make them agree"
                )
            if check_finite and not value.isfinite().all():
                raise ValueError(f"params: {name!r} holds NaN or infinity")
        return Query(
            layers=self.chain.geometry,
            population=population.assemble(self.chain, named),
            x_L=lower[None],
            x_U=upper[None],
            C=None if C is None else self._specification(C, lower, check_finite),
            backend=backends.resolve(backend, lower.device, lower.dtype),
            prune=prune,
            bound_upper=bound_upper,
            leaks=self.chain.leaks,
        )

    def _specification(self, C: Tensor, lower: Tensor, check_finite: bool) -> Tensor:
        if not isinstance(C, Tensor):
            raise TypeError(f"C: expected a tensor, got {type(C).__name__}")
        samples, outputs = lower.shape[0], self.chain.num_outputs
        if C.dim() == 2:
            C = C.expand(samples, *C.shape)
        if C.dim() != 3 or C.shape[0] != samples or C.shape[2] != outputs or C.shape[1] < 1:
            raise ValueError(f"C: expected [{samples}, S, {outputs}] or [S, {outputs}], got {list(C.shape)}")
        if C.device != lower.device:
            raise ValueError(f"C is on {C.device}, the input on {lower.device}; make them agree")
        if check_finite and not C.isfinite().all():
            raise ValueError("C: holds NaN or infinity")
        return C.to(lower.dtype)

    def _tiles(self, query: Query, memory_limit: int) -> "tuple[list[tiling.Tile], tiling.Footprint]":
        samples, dtype = query.x_L.shape[1], query.x_L.dtype
        spec_rows = None if query.C is None else query.C.shape[1]
        need = tiling.footprint(query.layers, spec_rows, query.backend, query.x_L.device, dtype, samples)
        return list(tiling.tiles(query.population.size, samples, need, memory_limit, query.backend)), need


@contextlib.contextmanager
def _granted(need: "tiling.Footprint | None", tile: tiling.Tile, memory_limit: int) -> Iterator[None]:
    """Grant what the limit leaves for the scratch of programs, beside the tile's bounds."""
    grant: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if need is not None:
        grant = workspace.grant(memory_limit - need.bounds(tile.p1 - tile.p0, tile.b1 - tile.b0))
    try:
        with grant:
            yield
    except torch.OutOfMemoryError as error:
        error.add_note(f"glsk: the device has no room; give compute_bounds a memory_limit below {memory_limit} bytes")
        raise


def _cut(query: Query, tile: tiling.Tile) -> Query:
    samples = slice(tile.b0, tile.b1)
    return replace(
        query,
        population=query.population.slice(tile.p0, tile.p1),
        x_L=query.x_L[:, samples],
        x_U=query.x_U[:, samples],
        C=None if query.C is None else query.C[samples],
    )


def _check_bounds(lower: Tensor, upper: Tensor | None) -> None:
    if lower.isnan().any() or (upper is not None and upper.isnan().any()):
        raise NumericalError("a bound is NaN: the weights or the box overflow the dtype; try float64")
