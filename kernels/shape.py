"""The shape of a pass as data: constants of the engine's kernel; :mod:`glsk.kernels.plan` makes them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a stage. ``i`` is a pixel of the layer's input, ``q`` a position of its output.

    Block m, tap j and phase f stand for q = m * step + j + base and i = m * phases + f + offset, both counted from
    their window's origin, and for the kernel index f - j * stride + tap0.
    """

    kernel: int
    stride: int
    padding: int
    image: int
    """Pixels of the layer's input."""
    q_window: int
    i_window: int
    q_whole: bool
    """Whether the window of q is the whole image (origin 0), not a window with an origin of the row's own."""
    i_whole: bool
    step: int
    taps: int
    blocks: int
    phases: int
    base: int
    offset: int
    tap0: int


@dataclass(frozen=True)
class Stage:
    """One layer's matrix product. Offsets count elements of a member's packed weights, scratch or slopes."""

    layer: int
    y: Axis
    x: Axis
    in_channels: int
    out_channels: int
    n: int
    k: int
    block_n: int
    block_k: int
    positions: int
    """Blocks that one tile of the product holds, each for all of the program's rows."""
    pipeline: int
    weight: int
    source: int
    target: int
    relu: bool
    """Whether a ReLU stands between this layer and the one below."""
    slopes: int
    bias: int
    """Of the layer below."""

    @property
    def blocks(self) -> int:
        return self.y.blocks * self.x.blocks

    @property
    def tiles(self) -> int:
        return -(-self.blocks // self.positions)

    @property
    def n_tiles(self) -> int:
        return -(-self.n // self.block_n)

    @property
    def k_tiles(self) -> int:
        return -(-self.k // self.block_k)

    @property
    def source_units(self) -> int:
        return self.y.q_window * self.x.q_window * self.out_channels

    @property
    def target_units(self) -> int:
        return self.y.i_window * self.x.i_window * self.in_channels

    @property
    def packed(self) -> int:
        """Elements of the member's packed matrix; a second one of this size, the low parts, lies behind it."""
        return self.n_tiles * self.block_n * self.k_tiles * self.block_k


@dataclass(frozen=True)
class Start:
    """Where a row's first coefficients come from: its own weights (``from_C`` False), or C."""

    from_C: bool
    kernel_y: int
    kernel_x: int
    channels: int
    stride_y: int
    stride_x: int
    padding_y: int
    padding_x: int
    out_height: int
    out_width: int
    image_y: int
    image_x: int
    units: int
    block: int
    first: int
    first_bias: int
    relu: bool
    slopes: int
    bias: int
    last: bool


@dataclass(frozen=True)
class Plan:
    """A pass, as constants of its kernel: ``plan[j]`` is the j-th product, from the top layer down."""

    start: Start
    stages: tuple[Stage, ...]
    rows: int
    """One-sided rows that a program carries together."""
    scratch: int
    """Floats of scratch of a program."""
    packed: int
    """Floats of one member's packed weights and biases."""
    slopes: int
    """Units of all layers that a ReLU follows."""
    slope_offsets: tuple[int, ...]
    bias_offsets: tuple[int, ...]
    warps: int

    def __getitem__(self, j: int) -> Stage:
        return self.stages[j]

    @property
    def depth(self) -> int:
        return len(self.stages)
