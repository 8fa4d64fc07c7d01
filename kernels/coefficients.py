"""What the engine does to single coefficients: which row, which window, the ReLU step, the box, and products of tiles.

Device functions of :mod:`glsk.kernels.back_substitution`.
"""

import triton
import triton.language as tl


@triton.jit
def row_of(slot, pair, count, units_ptr, R, SIDES: tl.constexpr, LISTED: tl.constexpr):
    """Unit, sign and validity of the one-sided rows ``slot`` of a pair: sides alternate, units as listed."""
    valid = slot < count * SIDES
    unit = tl.where(valid, slot // SIDES, 0)
    if LISTED:
        unit = tl.load(units_ptr + pair * R + unit, mask=valid, other=0)
    return unit, 1.0 - 2.0 * (slot % SIDES).to(tl.float32), valid


@triton.jit
def origin(unit, PLAN: tl.constexpr, J: tl.constexpr):
    """Where the window of product J's q begins for rows ``unit``, as (y, x)."""
    S: tl.constexpr = PLAN.start
    y, x = unit * 0, unit * 0
    if not S.from_C:
        y = unit // S.out_width % S.out_height * S.stride_y - S.padding_y
        x = unit % S.out_width * S.stride_x - S.padding_x
        for j in tl.static_range(J):
            y, x = origin_below(y, x, PLAN, j)
        if PLAN.depth > J:
            L: tl.constexpr = PLAN[J]
            if L.y.q_whole:
                y = unit * 0
            if L.x.q_whole:
                x = unit * 0
    return y, x


@triton.jit
def origin_below(y, x, PLAN: tl.constexpr, J: tl.constexpr):
    """Where the window of product J's i begins, given its q's."""
    G: tl.constexpr = PLAN[J]
    y, x = y * G.y.stride - G.y.padding, x * G.x.stride - G.x.padding
    if G.y.i_whole:
        y = y * 0
    if G.x.i_whole:
        x = x * 0
    return y, x


@triton.jit
def below_of(a, ptr, unit, mask, SHARED: tl.constexpr):
    """A value of the layer below for every coefficient of ``a`` [M, n], 0 where masked.

    SHARED: unit and mask are [positions, n], for all rows of a position (row fastest in M): loaded once, then spread.
    """
    value = tl.load(ptr + unit, mask=mask, other=0.0)
    if SHARED:
        ROWS: tl.constexpr = a.shape[0] // value.shape[0]
        value = tl.broadcast_to(value[:, None, :], [value.shape[0], ROWS, value.shape[1]])
        value = tl.reshape(value, a.shape)
    return value


@triton.jit
def relu_step(
    a, s_ptr, bias_ptr, unit, channel, mask,
    SLOPES: tl.constexpr, RELU: tl.constexpr, LINES: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """The coefficients below a ReLU and, for every coefficient, what the constant gains."""
    gain = tl.zeros_like(a)
    if RELU:
        if LINES == 2:
            s = below_of(a, s_ptr, unit, mask, SHARED)
            gain = tl.minimum(a, 0.0) * below_of(a, s_ptr + SLOPES, unit, mask, SHARED)
            a = a * tl.where((a >= 0.0) & (s <= 0.5), 0.0, tl.where(a >= 0.0, 1.0, s))
        else:
            low = below_of(a, s_ptr + SLOPES, unit, mask, SHARED)
            gain = a * tl.where(a >= 0.0, low, below_of(a, s_ptr + 3 * SLOPES, unit, mask, SHARED))
            low = below_of(a, s_ptr, unit, mask, SHARED)
            a = a * tl.where(a >= 0.0, low, below_of(a, s_ptr + 2 * SLOPES, unit, mask, SHARED))
    else:
        a = tl.where(mask, a, 0.0)
    gain += a * tl.load(bias_ptr + channel)[None, :]
    return a, gain


@triton.jit
def concretise(a, lower_ptr, upper_ptr, unit, mask, SHARED: tl.constexpr):
    """What each coefficient of an input contributes to the row's lower bound."""
    lower = below_of(a, lower_ptr, unit, mask, SHARED)
    upper = below_of(a, upper_ptr, unit, mask, SHARED)
    return a * tl.where(a >= 0.0, lower, upper)


@triton.jit
def within(offset, lane, SIZE: tl.constexpr):
    """Which of the sums [M, lanes] lie in 0..SIZE-1: one comparison, negative ones wrap around."""
    return (offset[:, None] + lane[None, :]).to(tl.uint32, bitcast=True) < SIZE


@triton.jit
def coefficients(source_ptr, row_at, from_y, from_x, exists, k, G: tl.constexpr):
    """A tile of the product's left side [M, block_k]: the positions that each block reads, 0 outside the window."""
    Y: tl.constexpr = G.y.q_window
    X: tl.constexpr = G.x.q_window
    t_y, t_x = k // (G.x.taps * G.out_channels), k // G.out_channels % G.x.taps
    at = row_at[:, None] + ((t_y * X + t_x) * G.out_channels + k % G.out_channels)[None, :]
    mask = exists[:, None] & (k < G.k)[None, :] & within(from_y, t_y, Y) & within(from_x, t_x, X)
    return tl.load(source_ptr + at, mask=mask, other=0.0)


@triton.jit
def weights(weight_ptr, at, G: tl.constexpr, PRECISION: tl.constexpr):
    """A tile of the member's packed matrix, and of its low parts (pack.py), where the precision wants those."""
    w = tl.load(weight_ptr + at)
    if PRECISION == "tf32x3":
        return w, tl.load(weight_ptr + G.packed + at)
    return w, w


@triton.jit
def multiply(a, w, w_low, acc, PRECISION: tl.constexpr):
    """acc + a w; tf32x3 is three TF32 products of high and low parts."""
    if PRECISION == "tf32x3":
        high = (a.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # the 10 bits that TF32 keeps
        acc = tl.dot(a - high, w, acc, input_precision="tf32")
        acc = tl.dot(high, w_low, acc, input_precision="tf32")
        return tl.dot(high, w, acc, input_precision="tf32")
    return tl.dot(a, w, acc, input_precision=PRECISION)
