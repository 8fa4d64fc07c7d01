"""The engine of every pass: rows back-substituted to the box in one launch.

A program carries ``plan.rows`` one-sided rows of one (member, sample) from their own weights (or C) down to the box. An
upper bound is the negated lower bound of the negated row, so all rows take one ReLU step: a coefficient a becomes
``a * (a < 0 ? s : lambda)`` and the constant gains ``min(a, 0) * t + a' * b``, s and t the upper line's slope and
intercept, lambda = [s > 1/2] the lower slope. Constants stay in registers; the coefficients between two products lie in
the program's own slice of scratch, so nothing of size P x B x rows x inputs exists. Programs share no sums: the same
inputs give the same bits, however many programs there are.
"""

import triton
import triton.language as tl


@triton.jit
def _row(slot, pair, count, units_ptr, R, SIDES: tl.constexpr, LISTED: tl.constexpr):
    """Unit, sign and validity of the one-sided rows ``slot`` of a pair: sides alternate, units as listed."""
    valid = slot < count * SIDES
    unit = tl.where(valid, slot // SIDES, 0)
    if LISTED:
        unit = tl.load(units_ptr + pair * R + unit, mask=valid, other=0)
    return unit, 1.0 - 2.0 * (slot % SIDES).to(tl.float32), valid


@triton.jit
def _origin(unit, PLAN: tl.constexpr, J: tl.constexpr):
    """Where the window of product J's q begins for rows ``unit``, as (y, x)."""
    S: tl.constexpr = PLAN.start
    y, x = unit * 0, unit * 0
    if not S.from_C:
        y = unit // S.out_width % S.out_height * S.stride_y - S.padding_y
        x = unit % S.out_width * S.stride_x - S.padding_x
        for j in tl.static_range(J):
            y, x = _below(y, x, PLAN, j)
        if PLAN.depth > J:
            L: tl.constexpr = PLAN[J]
            if L.y.q_whole:
                y = unit * 0
            if L.x.q_whole:
                x = unit * 0
    return y, x


@triton.jit
def _below(y, x, PLAN: tl.constexpr, J: tl.constexpr):
    """Where the window of product J's i begins, given its q's."""
    G: tl.constexpr = PLAN[J]
    y, x = y * G.y.stride - G.y.padding, x * G.x.stride - G.x.padding
    if G.y.i_whole:
        y = y * 0
    if G.x.i_whole:
        x = x * 0
    return y, x


@triton.jit
def _relu_step(a, s_ptr, bias_ptr, unit, channel, mask, SLOPES: tl.constexpr, RELU: tl.constexpr, HBOX: tl.constexpr):
    """The coefficients below a ReLU and, for every coefficient, what the constant gains."""
    gain = tl.zeros_like(a)
    if RELU:
        s = tl.load(s_ptr + unit, mask=mask, other=0.0)
        if not HBOX:
            gain = tl.minimum(a, 0.0) * tl.load(s_ptr + SLOPES + unit, mask=mask, other=0.0)
        a = a * tl.where((a >= 0.0) & (s <= 0.5), 0.0, tl.where(a >= 0.0, 1.0, s))
    else:
        a = tl.where(mask, a, 0.0)
    if not HBOX:
        gain += a * tl.load(bias_ptr + channel)
    return a, gain


@triton.jit
def _concretise(a, lower_ptr, upper_ptr, unit, mask, HBOX: tl.constexpr):
    """What each coefficient of an input contributes to the row's lower bound (HBox: to its radius)."""
    lower = tl.load(lower_ptr + unit, mask=mask, other=0.0)
    upper = tl.load(upper_ptr + unit, mask=mask, other=0.0)
    if HBOX:
        # Not abs(a): ptxas 12.8 and 12.9 take the sign mask of a wgmma result for a mask of zero and drop the product.
        upper = 0.5 * (upper - lower)
        lower = -upper
        return a * tl.where(a >= 0.0, upper, lower)
    return a * tl.where(a >= 0.0, lower, upper)


@triton.jit
def _start(
    scratch_ptr, packed_ptr, C_ptr, s_ptr, lower_ptr, upper_ptr, units_ptr, block, pair, count, R,
    PLAN: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, HBOX: tl.constexpr,
):  # fmt: skip
    """The rows' own weights, or C, through the first ReLU into the scratch (or the box); returns the constants."""
    S: tl.constexpr = PLAN.start
    ROWS: tl.constexpr = PLAN.rows
    BLOCK: tl.constexpr = S.block
    RELU: tl.constexpr = S.relu
    SLOPES: tl.constexpr = PLAN.slopes
    row = tl.arange(0, ROWS)
    unit, sign, valid = _row(block * ROWS + row, pair, count, units_ptr, R, SIDES, LISTED)
    if S.from_C:
        source = C_ptr + unit.to(tl.int64) * S.units
        constant = tl.zeros([ROWS], tl.float32)
    else:
        channel = unit // (S.out_height * S.out_width)
        source = packed_ptr + S.first + channel * S.units
        constant = tl.zeros([ROWS], tl.float32)
        if not HBOX:
            constant += sign * tl.load(packed_ptr + S.first_bias + channel, mask=valid, other=0.0)
    top = unit // S.out_width % S.out_height * S.stride_y - S.padding_y
    left = unit % S.out_width * S.stride_x - S.padding_x
    for start in range(0, S.units, BLOCK):
        u = start + tl.arange(0, BLOCK)
        inside = valid[:, None] & (u < S.units)[None, :]
        c = u % S.channels
        if S.from_C:  # units of C are in channel, row, column order
            column = (c * (S.out_height * S.out_width) + u // S.channels)[None, :]
            pixel = u[None, :]
            mask = inside
        else:
            y = top[:, None] + (u // (S.channels * S.kernel_x))[None, :]
            x = left[:, None] + (u // S.channels % S.kernel_x)[None, :]
            column = u[None, :]
            mask = inside & (y >= 0) & (y < S.image_y) & (x >= 0) & (x < S.image_x)
            if S.last:
                pixel = (c[None, :] * S.image_y + y) * S.image_x + x
            else:
                pixel = (y * S.image_x + x) * S.channels + c[None, :]
        a = sign[:, None] * tl.load(source[:, None] + column, mask=mask, other=0.0)
        if S.last:
            gain = _concretise(a, lower_ptr, upper_ptr, pixel, mask, HBOX)
        else:
            a, gain = _relu_step(
                a, s_ptr + S.slopes, packed_ptr + S.bias, pixel, c[None, :], mask, SLOPES, RELU, HBOX
            )
            tl.store(scratch_ptr + row[:, None] * S.units + u[None, :], a, mask=(u < S.units)[None, :])
        constant += tl.sum(gain, axis=1)
    return constant


@triton.jit
def _within(offset, lane, SIZE: tl.constexpr):
    """Which of the sums [M, lanes] lie in 0..SIZE-1: one comparison, negative ones wrap around."""
    return (offset[:, None] + lane[None, :]).to(tl.uint32, bitcast=True) < SIZE


@triton.jit
def _coefficients(source_ptr, row_at, from_y, from_x, exists, k, G: tl.constexpr):
    """A tile of the product's left side [M, block_k]: the positions that each block reads, 0 outside the window."""
    Y: tl.constexpr = G.y.q_window
    X: tl.constexpr = G.x.q_window
    t_y, t_x = k // (G.x.taps * G.out_channels), k // G.out_channels % G.x.taps
    at = row_at[:, None] + ((t_y * X + t_x) * G.out_channels + k % G.out_channels)[None, :]
    mask = exists[:, None] & (k < G.k)[None, :] & _within(from_y, t_y, Y) & _within(from_x, t_x, X)
    return tl.load(source_ptr + at, mask=mask, other=0.0)


@triton.jit
def _weights(weight_ptr, at, G: tl.constexpr, PRECISION: tl.constexpr):
    """A tile of the member's packed matrix, and of its low parts (pack.py), where the precision wants those."""
    w = tl.load(weight_ptr + at)
    if PRECISION == "tf32x3":
        return w, tl.load(weight_ptr + G.packed + at)
    return w, w


@triton.jit
def _multiply(a, w, w_low, acc, PRECISION: tl.constexpr):
    """acc + a w; tf32x3 is three TF32 products of high and low parts."""
    if PRECISION == "tf32x3":
        high = (a.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # the 10 bits that TF32 keeps
        acc = tl.dot(a - high, w, acc, input_precision="tf32")
        acc = tl.dot(high, w_low, acc, input_precision="tf32")
        return tl.dot(high, w, acc, input_precision="tf32")
    return tl.dot(a, w, acc, input_precision=PRECISION)


@triton.jit
def _product(
    scratch_ptr, packed_ptr, s_ptr, lower_ptr, upper_ptr, units_ptr, block, pair, count, R,
    PLAN: tl.constexpr, J: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, HBOX: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Product J for the program's rows: one layer down, through its ReLU or to the box; returns what constants gain."""
    G: tl.constexpr = PLAN[J]
    LAST: tl.constexpr = PLAN.depth - 1 == J
    ROWS: tl.constexpr = PLAN.rows
    POSITIONS: tl.constexpr = G.positions
    M: tl.constexpr = ROWS * POSITIONS
    BLOCK_N: tl.constexpr = G.block_n
    BLOCK_K: tl.constexpr = G.block_k
    STAGES: tl.constexpr = G.pipeline
    K_TILES: tl.constexpr = G.k_tiles
    K_PADDED: tl.constexpr = K_TILES * BLOCK_K
    RELU: tl.constexpr = G.relu
    SLOPES: tl.constexpr = PLAN.slopes
    IMAGE_Y: tl.constexpr = G.y.image
    IMAGE_X: tl.constexpr = G.x.image
    WINDOW_Y: tl.constexpr = G.y.i_window
    WINDOW_X: tl.constexpr = G.x.i_window
    # How far apart two pixels and two channels lie below: the box is in channel, row, column order, slopes are not.
    PIXEL: tl.constexpr = 1 if LAST else G.in_channels
    CHANNEL: tl.constexpr = G.y.image * G.x.image if LAST else 1
    lane = tl.arange(0, M)
    row, position = lane % ROWS, lane // ROWS
    unit, _, valid = _row(block * ROWS + row, pair, count, units_ptr, R, SIDES, LISTED)
    q_y, q_x = _origin(unit, PLAN, J)
    i_y, i_x = _below(q_y, q_x, PLAN, J)
    shift_y, shift_x = q_y * 0 + G.y.base, q_x * 0 + G.x.base
    if G.y.i_whole:
        shift_y -= q_y
    if G.x.i_whole:
        shift_x -= q_x
    source_ptr = scratch_ptr + G.source
    target_ptr = scratch_ptr + G.target
    weight_ptr = packed_ptr + G.weight
    constant = tl.zeros([M], tl.float32)
    k_lane, n_lane = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N)
    for n_start in range(0, G.n_tiles * BLOCK_N, BLOCK_N):
        n = n_start + n_lane
        n_y, n_x = n // (G.x.phases * G.in_channels), n // G.in_channels % G.x.phases
        channel = n % G.in_channels
        if K_TILES == 1:
            w, w_low = _weights(weight_ptr, n[None, :] * K_PADDED + k_lane[:, None], G, PRECISION)
        for tile in tl.range(0, G.tiles, num_stages=STAGES, flatten=True):
            index = tile * POSITIONS + position
            m_y, m_x = index // G.x.blocks, index % G.x.blocks
            from_y, from_x = m_y * G.y.step + shift_y, m_x * G.x.step + shift_x
            row_at = row * G.source_units + (from_y * G.x.q_window + from_x) * G.out_channels
            exists = valid & (index < G.blocks)
            acc = tl.zeros([M, BLOCK_N], tl.float32)
            if K_TILES == 1:
                a = _coefficients(source_ptr, row_at, from_y, from_x, exists, k_lane, G)
                acc = _multiply(a, w, w_low, acc, PRECISION)
            else:
                for k_tile in tl.range(0, K_TILES, num_stages=STAGES):
                    k = k_tile * BLOCK_K + k_lane
                    w, w_low = _weights(weight_ptr, n[None, :] * K_PADDED + k[:, None], G, PRECISION)
                    a = _coefficients(source_ptr, row_at, from_y, from_x, exists, k, G)
                    acc = _multiply(a, w, w_low, acc, PRECISION)
            # The first pixel of each block, in the window and in the image.
            y, x = m_y * G.y.phases + G.y.offset, m_x * G.x.phases + G.x.offset
            row_at = row * G.target_units + (y * WINDOW_X + x) * G.in_channels
            n_at = (n_y * WINDOW_X + n_x) * G.in_channels + channel
            kept = exists[:, None] & (n < G.n)[None, :] & _within(y, n_y, WINDOW_Y) & _within(x, n_x, WINDOW_X)
            y, x = y + i_y, x + i_x
            mask = kept
            if not G.y.i_whole:
                mask = mask & _within(y, n_y, IMAGE_Y)
            if not G.x.i_whole:
                mask = mask & _within(x, n_x, IMAGE_X)
            below = ((y * IMAGE_X + x) * PIXEL)[:, None] + ((n_y * IMAGE_X + n_x) * PIXEL + channel * CHANNEL)[None, :]
            if LAST:
                gain = _concretise(acc, lower_ptr, upper_ptr, below, mask, HBOX)
            else:
                acc, gain = _relu_step(
                    acc, s_ptr + G.slopes, packed_ptr + G.bias, below, channel[None, :], mask, SLOPES, RELU, HBOX
                )
                tl.store(target_ptr + (row_at[:, None] + n_at[None, :]), acc, mask=kept)
            constant += tl.sum(gain, axis=1)
    return tl.sum(tl.reshape(constant, [POSITIONS, ROWS]), axis=0)


@triton.jit(do_not_specialize=["x_member", "x_sample", "pairs", "samples", "R", "row_blocks"])
def back_substitution_kernel(
    packed_ptr,  # [P, packed], of pack.py
    C_ptr,  # [B, R, units], or unused
    slopes_ptr,  # [P, B, 2, slopes] (HBox: [P, B, 1, slopes]), of relu_relaxation.py, or unused
    x_L_ptr, x_U_ptr, x_member, x_sample,  # the box and its strides
    units_ptr, counts_ptr,  # [P, B, R] and [P, B]: the rows wanted, or unused
    lower_ptr, upper_ptr,  # [P, B, R]
    scratch_ptr,  # [programs, scratch]
    pairs, samples, R, row_blocks,
    PLAN: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, HBOX: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Every program takes every so-manieth (pair, block of rows) until none is left."""
    ROWS: tl.constexpr = PLAN.rows
    DEPTH: tl.constexpr = PLAN.depth
    SLOPE_ROWS: tl.constexpr = 1 if HBOX else 2  # s, and t but for HBox
    scratch_ptr += tl.program_id(0).to(tl.int64) * PLAN.scratch
    task = tl.program_id(0).to(tl.int64)
    while task < pairs * row_blocks:
        pair = task // row_blocks
        # Rotated, so that every program meets early and late blocks: the late ones are empty where rows were pruned.
        block = ((task + pair) % row_blocks).to(tl.int32)
        count = R
        if LISTED:
            count = tl.load(counts_ptr + pair)
        if block * ROWS < count * SIDES:
            member, sample = pair // samples, pair % samples
            packed = packed_ptr + member * PLAN.packed
            s = slopes_ptr + pair * (SLOPE_ROWS * PLAN.slopes)
            x_L = x_L_ptr + member * x_member + sample * x_sample
            x_U = x_U_ptr + member * x_member + sample * x_sample
            C = C_ptr + sample * R * PLAN.start.units
            constant = _start(
                scratch_ptr, packed, C, s, x_L, x_U, units_ptr, block, pair, count, R, PLAN, SIDES, LISTED, HBOX
            )
            for j in tl.static_range(DEPTH):
                tl.debug_barrier()  # what one product has stored, all threads may load
                constant += _product(
                    scratch_ptr, packed, s, x_L, x_U, units_ptr, block, pair, count, R,
                    PLAN, j, SIDES, LISTED, HBOX, PRECISION,
                )  # fmt: skip
            tl.debug_barrier()  # the next task stores where this one has loaded
            slot = block * ROWS + tl.arange(0, ROWS)
            unit, sign, valid = _row(slot, pair, count, units_ptr, R, SIDES, LISTED)
            tl.store(lower_ptr + pair * R + unit, constant, mask=valid & (sign > 0))
            if SIDES == 2:
                tl.store(upper_ptr + pair * R + unit, -constant, mask=valid & (sign < 0))
        task += tl.num_programs(0)
