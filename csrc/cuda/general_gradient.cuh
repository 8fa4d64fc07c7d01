// Where a group of lanes, on its way up, turns: at the box, at the lines of a layer, and at the rows of C. Each of these
// makes what is needed above, and adds the operand's own gradient up in place, in the order of the groups.
#pragma once

#include "general_rise.cuh"

namespace glsk::cuda {

// The corner of the box that the lanes' coefficients pick, as the values to go up from; and the gradient of the box.
template <class T, class Group>
__device__ void start_at_corner(const Pass& pass, const PassGradient& gradient, const Group& group,
                                const Window& window, const T* upstream, const T* coefficients, T* values) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const Layer& layer = pass.layer[0];
    const std::int64_t n = layer.in_features(), units = std::int64_t(layer.in_channels) * window.area();
    const int quad = quad_of_thread<LANES>();
    for (std::int64_t base = 0; base < units; base += WORKERS) {
        const std::int64_t at = base + worker_of_thread<LANES>();
        std::int64_t unit = 0;
        Ends<T> sum = {T(0), T(0)};
        if (at < units) {
            const int pixel = static_cast<int>(at % window.area());
            unit = input_of(layer, static_cast<int>(at / window.area()), window.y0 + pixel / window.width(),
                            window.x0 + pixel % window.width());
            const T l = slice<T>(pass.x_lower, group.p, group.b)[unit];
            const T u = slice<T>(pass.x_upper, group.p, group.b)[unit];
            const Lanes<T> four = lanes_at<LANES>(coefficients, at, quad);
            Lanes<T> value;
            for (int v = 0; v < QUAD; ++v) {
                const T a = four.at[v];
                value.at[v] = a > T(0) ? l : a < T(0) ? u : l / 2 + u / 2 + a;  // a: 0, or NaN
                (a < T(0) ? sum.upper : sum.lower) += upstream[quad + v] * a;
            }
            lanes_at<LANES>(values, at, quad) = value;
        }
        if (gradient.box == nullptr) continue;
        sum = {over_quads<LANES>(sum.lower), over_quads<LANES>(sum.upper)};
        if (at < units && quad == 0) {
            T* box = static_cast<T*>(gradient.box) + (group.p * pass.samples + group.b) * 2 * n + unit;
            box[0] += sum.lower, box[n] += sum.upper;
        }
    }
}

// Where the gradient of a row's (or of all rows') lines around one unit is added up.
template <class T>
struct LineSums {
    T* to;
    std::int64_t units;

    __device__ __forceinline__ void add(const Lines<T>& sum) const {
        to[0] += sum.lower_slope, to[units] += sum.lower_intercept;
        to[2 * units] += sum.upper_slope, to[3 * units] += sum.upper_intercept;
    }
};

// Values of layer k's pre-activations to those of its activations, and coefficients of the latter to the former, with
// the upstream gradient; the gradient of the lines between, or of the bounds that they are made from.
template <class T, bool PER_ROW, class Group>
__device__ void through_lines(const Pass& pass, const PassGradient& gradient, const Group& group, int k,
                              const Window& window, const T* upstream, T* coefficients, T* values) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const Layer& layer = pass.layer[k];
    const std::int64_t pair = group.p * pass.samples + group.b, many = std::int64_t(layer.out_channels) * window.area();
    const std::int64_t units = units_before(pass, pass.layers - 1), before = units_before(pass, k);
    const bool lines_wanted = layer.relu && layer.around.are_lines() && gradient.lines != nullptr;
    const bool bounds_wanted = layer.relu && !layer.around.are_lines() && gradient.bounds != nullptr;
    const int quad = quad_of_thread<LANES>();
    for (std::int64_t base = 0; base < many; base += WORKERS) {
        const std::int64_t at = base + worker_of_thread<LANES>();
        const bool there = at < many;
        const int channel = static_cast<int>(at / window.area()), pixel = static_cast<int>(at % window.area());
        const int y = window.y0 + pixel / window.width(), x = window.x0 + pixel % window.width();
        const std::int64_t unit = (std::int64_t(channel) * layer.out_height + y) * layer.out_width + x;
        const auto sums_of = [&](int row) -> LineSums<T> {
            const std::int64_t slot = pair * (PER_ROW ? pass.rows : 1) + row;
            return {static_cast<T*>(gradient.lines) + slot * 4 * units + before + unit, units};
        };
        Lines<T> sum = {};        // of the thread's lanes, or, of lines by row, of
        bool shared_row = false;  // its first lane if that has the row of the lane before, another thread's
        if (there) {
            Lanes<T>& a = lanes_at<LANES>(coefficients, at, quad);
            Lanes<T>& value = lanes_at<LANES>(values, at, quad);
            Lines<T> lines = {};
            if (!PER_ROW) lines = lines_of<T>(layer, pass.rule, group.p, group.b, unit);
            for (int v = 0; v < QUAD; ++v) {
                const int lane = min(quad + v, group.lanes - 1), row = group.row(pass, lane);
                if (PER_ROW) lines = lines_of<T>(layer, pass.rule, group.p, group.b, unit, row);
                const bool negative = a.at[v] < T(0);
                const T each = upstream[quad + v] * a.at[v], product = each * value.at[v];
                const Lines<T> one =
                    negative ? Lines<T>{T(0), T(0), product, each} : Lines<T>{product, each, T(0), T(0)};
                const T slope = negative ? lines.upper_slope : lines.lower_slope;
                value.at[v] = slope * value.at[v] + (negative ? lines.upper_intercept : lines.lower_intercept);
                a.at[v] = each * slope;
                if (!PER_ROW || bounds_wanted) {
                    sum.lower_slope += one.lower_slope, sum.lower_intercept += one.lower_intercept;
                    sum.upper_slope += one.upper_slope, sum.upper_intercept += one.upper_intercept;
                } else if (lines_wanted && quad + v < group.lanes) {
                    if (v == 0 && quad > 0 && row == group.row(pass, quad - 1)) {
                        sum = one, shared_row = true;
                    } else {
                        sums_of(row).add(one);
                    }
                }
            }
        }
        if (PER_ROW && lines_wanted) {
            __syncwarp();  // the other side of the row has been added
            if (shared_row) sums_of(group.row(pass, quad)).add(sum);
        }
        if (PER_ROW ? !bounds_wanted : !lines_wanted && !bounds_wanted) continue;
        sum = {over_quads<LANES>(sum.lower_slope), over_quads<LANES>(sum.lower_intercept),
               over_quads<LANES>(sum.upper_slope), over_quads<LANES>(sum.upper_intercept)};
        if (!there || quad != 0) continue;
        if (lines_wanted) {
            sums_of(0).add(sum);
            continue;
        }
        const T l = lower_of<T>(layer.around, group.p, group.b)[unit];
        const T u = upper_of<T>(layer.around, group.p, group.b)[unit];
        const Ends<T> ends = gradient_of_bounds(pass.rule, T(layer.leak), l, u, sum);
        T* to = static_cast<T*>(gradient.bounds) + pair * 2 * units + before + unit;
        to[0] += ends.lower, to[units] += ends.upper;
    }
}

// Of the last layer's outputs, rows of C with the upstream gradient; and the gradient of C, given their values.
template <class T, class Group>
__device__ void through_specification(const Pass& pass, const PassGradient& gradient, const Group& group,
                                      const T* upstream, T* coefficients, const T* values) {
    constexpr int LANES = Group::LANES;
    const std::int64_t outputs = pass.layer[pass.layers - 1].out_features();
    for (std::int64_t unit = threadIdx.x; unit < outputs; unit += THREADS) {
        for (int lane = 0; lane < LANES; ++lane) {
            coefficients[unit * LANES + lane] = upstream[lane] * specified<T>(pass, group, lane, unit);
        }
        for (int lane = 0; gradient.C != nullptr && lane < group.lanes; ++lane) {
            const T own = group.negated(pass, lane) ? -upstream[lane] : upstream[lane];
            const std::int64_t row = (group.p * pass.samples + group.b) * pass.rows + group.row(pass, lane);
            static_cast<T*>(gradient.C)[row * outputs + unit] += own * values[unit * LANES + lane];
        }
    }
}

}  // namespace glsk::cuda
