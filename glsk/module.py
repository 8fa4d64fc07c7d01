"""``BoundedModule``: an ``nn.Module`` whose outputs can be bounded over boxes, for a whole population of weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glsk import backends, bounds, box, constraints, population, specification, tiled
from glsk.arguments import flag
from glsk.bounds import Bounds, Query
from glsk.description import describe_chain
from glsk.errors import NumericalError
from glsk.fingerprint import fingerprint
from glsk.input_shape import read_input_shape
from glsk.linear import in_data_units
from glsk.network import Chain, build_chain
from glsk.population import Params
from glsk.query_options import QueryOptions
from glsk.uncompiled import uncompiled


class BoundedModule:
    """Sound bounds of a ReLU network, batched over a population of weight sets.

    Args:
        net: an ``nn.Sequential`` (nested ones too) of Conv2d, AvgPool2d, Linear, ReLU, LeakyReLU, Flatten,
            ``glsk.Normalize`` and BatchNorm in eval mode after an affine layer, ending in an affine layer. Identity,
            and Dropout in eval mode, are skipped.
        input_shape: the shape of one sample, (channels, height, width) or (features,), or features alone; or a batch
            [B, *shape] to take it from.

    Raises:
        TypeError: if ``net`` is no module, or ``input_shape`` no shape.
        glsk.UnsupportedLayerError: naming the first layer that cannot be bounded, and what is supported.
        ValueError: if a layer does not fit the shape that reaches it.

    The module is read, never changed: every call bounds the network as it is then, its layers, their settings and (with
    ``params`` omitted) its weights, and raises what making a new ``BoundedModule`` would raise. ``bounded(x)`` is
    ``net(x)``.
    """

    def __init__(self, net: nn.Module, input_shape: int | tuple[int, ...] | Tensor) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected an nn.Module, got {type(net).__name__}")
        self.net = net
        self.input_shape = read_input_shape(input_shape)
        self._built = fingerprint(net), build_chain(net, self.input_shape)

    @property
    def chain(self) -> Chain:
        """The network as it is now. Raises as the constructor does."""
        now = fingerprint(self.net)
        if now != self._built[0]:
            self._built = now, build_chain(self.net, self.input_shape)
        return self._built[1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own outputs, ``net(x)``."""
        return self.net(*args, **kwargs)

    def __repr__(self) -> str:
        try:
            return f"BoundedModule({describe_chain(self.chain)}\n)"
        except ValueError as error:
            return f"BoundedModule(cannot be bounded as it is now: {error})"

    @property
    def num_parameters(self) -> int:
        """D, the length of one flat member."""
        return sum(p.numel() for p in self.net.parameters())

    @uncompiled
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
        iterations: int = 20,
        lr: float = 0.1,
        intermediate: Mapping[str, Bounds] | None = None,
        intermediate_mode: str = "intersect",
        lines: Mapping[str, Tensor] | None = None,
        splits: Mapping[str, Tensor] | None = None,
        return_linear: bool = False,
    ) -> Any:
        """Lower and upper bounds of C f(x) over a box around every sample, for every member of a population.

        Args:
            x: samples [B, *input_shape], float32 or float64, in data units; with ``eps``, the L-infinity radius, and
                ``clip``, the data range the ball is cut to, two finite numbers. ``eps`` is a number (or a tensor [] or
                [1]), [B] for one a sample, or [*input_shape] or [B, *input_shape], where any axis may be 1.
            x_L, x_U: instead of x, any box, [B, *input_shape] each.
            C: specification [B, S, K] or [S, K], rows of linear functions of the K logits (``glsk.margins``), converted
                to x's dtype; None bounds the logits.
            method: "IBP", "HBox", "CROWN-IBP", "CROWN" (= "DeepPoly"; all paper, §2.2), "DeepZ" (CROWN with parallel
                lines) or "alpha-CROWN" (CROWN with lower slopes optimised for every row of C, never looser; it has no
                gradient), any case.
            params: weights [P, D] in ``module.parameters()`` order, or a dict name -> [P, *shape]; None is the module's
                own. The dict may hold the buffers too, or the pair (params, buffers) that ``stack_module_state``
                returns be given: each member then has its own BatchNorm statistics. Without them the module's serve
                all. ``glsk.Normalize`` is one for all members.
            backend: "auto", "reference", "cpu", "triton" or "cuda".
            prune: let a hidden unit that a cheaper sound bound proves stable keep that bound (of CROWN and its
                kind). False gives the plain domain exactly.
            bound_upper: False leaves the upper bound out (None), which halves the last pass.
            memory_limit: bytes of scratch memory, beside inputs and outputs, that the call may use. A GPU backend
                refuses a limit too small for one sample of one member; a CPU backend computes them one by one.
            check_finite: check inputs, weights and bounds for NaN and infinity (on a GPU this waits for the device).
            iterations, lr: of alpha-CROWN: how often the bounds are computed (once is CROWN), and Adam's step.
            intermediate: sound bounds of hidden units, name of the affine layer -> (lower, upper), [P, B, n] or [B, n]
                each (as :meth:`intermediate_bounds` returns them), which ``intermediate_mode`` "intersect" intersects
                with the method's own, and "replace" puts in their place: such a layer is not computed.
            lines: name of the affine layer -> the lines of the activation after it, [P or 1, B or 1, R or 1, 4, n] with
                R rows of C (see ``glsk.lines``), used as they are by a method with linear bounds.
            splits: name of the affine layer -> integers [B, n]: the bounds hold for those inputs of the box at which a
                unit of 1 is active (its pre-activation >= 0) and one of -1 inactive (<= 0); 0 leaves it free. Bounds of
                a subproblem that no input meets are finite numbers that mean nothing: emptiness is not reported.
            return_linear: return the linear functions too that the bounds come of, by plain PyTorch on any backend.

        Returns:
            lower, upper: [P, B, S], or [B, S] with ``params`` omitted; x's dtype and device. With ``return_linear``
            (lower, upper, :class:`glsk.LinearBounds`).

        Raises:
            TypeError, ValueError: bad arguments, before any work.
            glsk.BackendUnavailableError: the backend cannot run here, or not for this device or dtype.
            glsk.NumericalError: a bound is NaN, or a lower one +inf or an upper one -inf (the weights or the box
                overflow). The other infinities are sound.
        """
        method = bounds.canonical_method(method)
        options = QueryOptions(backend, prune, bound_upper, memory_limit, check_finite, iterations, lr)
        if (flag("return_linear", return_linear) or lines) and not bounds.is_linear(method):
            argument = "return_linear" if return_linear else "lines"
            raise ValueError(f"{argument}: {method} does not bound the outputs by linear functions of the input")
        chain = self.chain
        ends = box.resolve(chain, x, eps, clip, x_L, x_U, options.check_finite)
        query = self._query(chain, ends, C, params, options)
        rows = chain.num_outputs if query.C is None else query.C.shape[1]
        known = constraints.resolve(
            chain, intermediate, intermediate_mode, lines, splits, ends[0], query.population.size, rows,
            options.check_finite,
        )  # fmt: skip
        query = replace(query, constraints=known)
        functions = None
        if return_linear:
            lower, upper, functions = tiled.linear_bounds(method, query, options.memory_limit)
        else:
            lower, upper = tiled.output_bounds(method, query, options.memory_limit)
        if options.check_finite:
            _check_bounds(lower, upper)
        if params is None:
            lower, upper = lower[0], None if upper is None else upper[0]
        if functions is not None:
            return lower, upper, in_data_units(chain, functions, single=params is None)
        return lower, upper

    @uncompiled
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
        method = bounds.canonical_method(method)
        options = QueryOptions(backend, prune=False, memory_limit=memory_limit, check_finite=check_finite)
        chain = self.chain
        ends = box.resolve(chain, x, eps, clip, x_L, x_U, options.check_finite)
        query = self._query(chain, ends, None, params, options)
        result: dict[str, Bounds] = {}
        for k, (lower, upper) in tiled.hidden_bounds(method, query, options.memory_limit).items():
            if options.check_finite:
                _check_bounds(lower, upper)
            result[chain.layers[k].name] = (lower[0], upper[0]) if params is None else (lower, upper)
        return result

    def _query(
        self, chain: Chain, ends: Bounds, C: Tensor | None, params: Params | None, options: QueryOptions
    ) -> Query:
        """What is left to check before any work, and what the bounds are computed from."""
        x_L, x_U = ends
        named = population.resolve(chain, self.net, params)
        for name, value in named.items():
            if value.dtype != x_L.dtype or value.device != x_L.device:
                raise ValueError(
                    f"{name!r} is {value.dtype} on {value.device}, the input is {x_L.dtype} on {x_L.device}; "
                    "make them agree"
                )
        if options.check_finite:
            population.check_values(chain, named)
        return Query(
            layers=chain.geometry,
            population=population.assemble(chain, named),
            x_L=x_L[None],
            x_U=x_U[None],
            C=None if C is None else specification.resolve(chain, C, x_L, options.check_finite),
            backend=backends.resolve(options.backend, x_L.device, x_L.dtype),
            prune=options.prune,
            bound_upper=options.bound_upper,
            iterations=options.iterations,
            lr=options.lr,
            leaks=chain.leaks,
        )


def _check_bounds(lower: Tensor, upper: Tensor | None) -> None:
    # A comparison with NaN is false. lower = -inf and upper = +inf say nothing, but are sound.
    if not ((lower < torch.inf).all() and (upper is None or (upper > -torch.inf).all())):
        raise NumericalError(
            "a bound is NaN, a lower bound +inf or an upper bound -inf: the weights or the box overflow the dtype; "
            "try float64"
        )
