"""The engine of every pass: rows back-substituted to the box in one launch.

A program carries ``plan.rows`` one-sided rows of one (member, sample) from their own weights (or C) down to the box. An
upper bound is the negated lower bound of the negated row, so all rows take one ReLU step: a coefficient a becomes
``a * (a < 0 ? s : lambda)`` and the constant gains ``min(a, 0) * t + a' * b``, s and t the upper line's slope and
intercept, lambda = [s > 1/2] the lower slope (LINES == 2), or lambda and the lower line's intercept are given as well
(LINES == 4). Constants stay in registers; the coefficients between two products lie in
the program's own slice of scratch, so nothing of size P x B x rows x inputs exists. Programs share no sums: the same
inputs give the same bits, however many programs there are.
"""

import triton
import triton.language as tl
from glsk.kernels.coefficients import (
    coefficients,
    concretise,
    multiply,
    origin,
    origin_below,
    relu_step,
    row_of,
    weights,
    within,
)


@triton.jit
def _start(
    scratch_ptr, packed_ptr, C_ptr, s_ptr, lower_ptr, upper_ptr, units_ptr, block, pair, count, R,
    PLAN: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, LINES: tl.constexpr,
):  # fmt: skip
    """The rows' own weights, or C, through the first ReLU into the scratch (or the box); returns the constants."""
    S: tl.constexpr = PLAN.start
    ROWS: tl.constexpr = PLAN.rows
    BLOCK: tl.constexpr = S.block
    RELU: tl.constexpr = S.relu
    SLOPES: tl.constexpr = PLAN.slopes
    row = tl.arange(0, ROWS)
    unit, sign, valid = row_of(block * ROWS + row, pair, count, units_ptr, R, SIDES, LISTED)
    if S.from_C:
        source = C_ptr + unit.to(tl.int64) * S.units
        constant = tl.zeros([ROWS], tl.float32)
    else:
        channel = unit // (S.out_height * S.out_width)
        source = packed_ptr + S.first + channel * S.units
        constant = sign * tl.load(packed_ptr + S.first_bias + channel, mask=valid, other=0.0)
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
            gain = concretise(a, lower_ptr, upper_ptr, pixel, mask, False)
        else:
            a, gain = relu_step(
                a, s_ptr + S.slopes, packed_ptr + S.bias, pixel, c, mask, SLOPES, RELU, LINES, False
            )  # fmt: skip
            tl.store(scratch_ptr + row[:, None] * S.units + u[None, :], a, mask=(u < S.units)[None, :])
        constant += tl.sum(gain, axis=1)
    return constant


@triton.jit
def _product(
    scratch_ptr, packed_ptr, s_ptr, lower_ptr, upper_ptr, units_ptr, block, pair, count, R,
    PLAN: tl.constexpr, J: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, LINES: tl.constexpr,
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
    SHARED: tl.constexpr = G.y.i_whole and G.x.i_whole and (LAST or RELU)
    lane = tl.arange(0, M)
    row, position = lane % ROWS, lane // ROWS
    unit, _, valid = row_of(block * ROWS + row, pair, count, units_ptr, R, SIDES, LISTED)
    q_y, q_x = origin(unit, PLAN, J)
    i_y, i_x = origin_below(q_y, q_x, PLAN, J)
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
            w, w_low = weights(weight_ptr, n[None, :] * K_PADDED + k_lane[:, None], G, PRECISION)
        for tile in tl.range(0, G.tiles, num_stages=STAGES, flatten=True):
            index = tile * POSITIONS + position
            m_y, m_x = index // G.x.blocks, index % G.x.blocks
            from_y, from_x = m_y * G.y.step + shift_y, m_x * G.x.step + shift_x
            row_at = row * G.source_units + (from_y * G.x.q_window + from_x) * G.out_channels
            exists = valid & (index < G.blocks)
            acc = tl.zeros([M, BLOCK_N], tl.float32)
            if K_TILES == 1:
                a = coefficients(source_ptr, row_at, from_y, from_x, exists, k_lane, G)
                acc = multiply(a, w, w_low, acc, PRECISION)
            else:
                for k_tile in tl.range(0, K_TILES, num_stages=STAGES):
                    k = k_tile * BLOCK_K + k_lane
                    w, w_low = weights(weight_ptr, n[None, :] * K_PADDED + k[:, None], G, PRECISION)
                    a = coefficients(source_ptr, row_at, from_y, from_x, exists, k, G)
                    acc = multiply(a, w, w_low, acc, PRECISION)
            # The first pixel of each block, in the window and in the image.
            y, x = m_y * G.y.phases + G.y.offset, m_x * G.x.phases + G.x.offset
            row_at = row * G.target_units + (y * WINDOW_X + x) * G.in_channels
            n_at = (n_y * WINDOW_X + n_x) * G.in_channels + channel
            kept = exists[:, None] & (n < G.n)[None, :] & within(y, n_y, WINDOW_Y) & within(x, n_x, WINDOW_X)
            if SHARED:
                head = tile * POSITIONS + tl.arange(0, POSITIONS)
                y = head // G.x.blocks * G.y.phases + G.y.offset
                x = head % G.x.blocks * G.x.phases + G.x.offset
                mask = (head < G.blocks)[:, None] & (n < G.n)[None, :]
            else:
                y, x = y + i_y, x + i_x
                mask = kept
            mask = mask & within(y, n_y, IMAGE_Y) & within(x, n_x, IMAGE_X)
            under = ((y * IMAGE_X + x) * PIXEL)[:, None] + ((n_y * IMAGE_X + n_x) * PIXEL + channel * CHANNEL)[None, :]
            if LAST:
                gain = concretise(acc, lower_ptr, upper_ptr, under, mask, SHARED)
            else:
                acc, gain = relu_step(
                    acc, s_ptr + G.slopes, packed_ptr + G.bias, under, channel, mask, SLOPES, RELU, LINES, SHARED
                )  # fmt: skip
                tl.store(target_ptr + (row_at[:, None] + n_at[None, :]), acc, mask=kept)
            constant += tl.sum(gain, axis=1)
    return tl.sum(tl.reshape(constant, [POSITIONS, ROWS]), axis=0)


@triton.jit(do_not_specialize=["x_member", "x_sample", "pairs", "samples", "R", "row_blocks"])
def back_substitution_kernel(
    packed_ptr,  # [P, packed], of pack.py
    C_ptr,  # [B, R, units], or unused
    slopes_ptr,  # [P, B, LINES, slopes], of relu_relaxation.py, or unused
    x_L_ptr, x_U_ptr, x_member, x_sample,  # the box and its strides
    units_ptr, counts_ptr,  # [P, B, R] and [P, B]: the rows wanted, or unused
    lower_ptr, upper_ptr,  # [P, B, R]
    scratch_ptr,  # [programs, scratch]
    pairs, samples, R, row_blocks,
    PLAN: tl.constexpr, SIDES: tl.constexpr, LISTED: tl.constexpr, LINES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Every program takes every so-manieth (pair, block of rows) until none is left."""
    ROWS: tl.constexpr = PLAN.rows
    DEPTH: tl.constexpr = PLAN.depth
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
            s = slopes_ptr + pair * (LINES * PLAN.slopes)
            x_L = x_L_ptr + member * x_member + sample * x_sample
            x_U = x_U_ptr + member * x_member + sample * x_sample
            C = C_ptr + sample * R * PLAN.start.units
            constant = _start(
                scratch_ptr, packed, C, s, x_L, x_U, units_ptr, block, pair, count, R, PLAN, SIDES, LISTED, LINES
            )
            for j in tl.static_range(DEPTH):
                tl.debug_barrier()  # what one product has stored, all threads may load
                constant += _product(
                    scratch_ptr, packed, s, x_L, x_U, units_ptr, block, pair, count, R,
                    PLAN, j, SIDES, LISTED, LINES, PRECISION,
                )  # fmt: skip
            tl.debug_barrier()  # the next task stores where this one has loaded
            constant = tl.where(constant == float("inf"), float("nan"), constant)  # absurd: something overflowed
            slot = block * ROWS + tl.arange(0, ROWS)
            unit, sign, valid = row_of(slot, pair, count, units_ptr, R, SIDES, LISTED)
            tl.store(lower_ptr + pair * R + unit, constant, mask=valid & (sign > 0))
            if SIDES == 2:
                tl.store(upper_ptr + pair * R + unit, -constant, mask=valid & (sign < 0))
        task += tl.num_programs(0)
