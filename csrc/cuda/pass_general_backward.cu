// The gradient of a pass of any chain, with no tape: a group of lanes walks down as in the general pass, and its
// coefficients of every layer stay in the thread block's workspace; then up again (general_rise.cuh).
//
// A thread block keeps to one member, and takes every nth sample of it: what it adds up for the member's parameters lies
// in its own workspace, and another kernel adds up the blocks in order. What belongs to one (member, sample) it adds up
// in place. So the same call gives the same bits. Rows whose upstream gradient is zero are not visited.
#include "general_rise.cuh"
#include "partial_sums.cuh"

namespace glsk::cuda {
namespace {

constexpr int CHUNK = 256;                     // rows that are looked through at a time
constexpr std::int64_t BLOCKS = 512;           // thread blocks at most, so that sums do not depend on the device
constexpr std::int64_t WORKSPACE = 256 << 20;  // bytes; more only if one thread block needs more

struct Group {
    std::int64_t p, b;
    int lanes, first;
    const int* words;  // of each lane: twice its row's place in the visiting order after first, and 1 for an upper bound

    __device__ int row(const Pass& pass, int lane) const { return row_at(pass, first + words[lane] / 2); }
    __device__ bool negated(const Pass&, int lane) const { return words[lane] % 2 == 1; }
    __device__ int step(const Pass&) const { return 1; }
};

// Where a thread block's parts of the workspace begin, in elements.
struct Layout {
    std::int64_t to, saved, parameters, end;

    explicit Layout(const Pass& pass) {
        const Layer& last = pass.layer[pass.layers - 1];
        to = std::max(widest(pass), pass.layer[0].in_features()) * LANES;  // two of coefficients, or of values
        saved = 2 * to;
        parameters = saved;
        for (int k = 0; k < pass.layers; ++k) parameters += pass.layer[k].in_features() * LANES;
        if (pass.C.data != nullptr) parameters += last.out_features() * LANES;
        end = parameters + divide_up<std::int64_t>(Parameters(pass, pass.layers - 1).end, LANES) * LANES;
    }
};

// Coefficients of layer k's inputs among all that are saved; k = layers: of the last layer's outputs.
template <class T>
__device__ T* saved_at(const Pass& pass, T* saved, int k) {
    for (int j = 0; j < k; ++j) saved += pass.layer[j].in_features() * LANES;
    return saved;
}

// The way down: coefficients are kept before they go through the lines.
template <class T, bool PER_ROW>
struct Trace {
    const Pass& pass;
    const Group& group;
    T* saved;
    Window* windows;
    T* level;

    __device__ void constant(int, T) {}
    __device__ void begin(int k, const Window& window) {
        if (threadIdx.x == 0) windows[k] = window;
        level = saved_at(pass, saved, k);
    }
    __device__ void operator()(int k, int channel, int y, int x, std::int64_t at, Lanes<T>& a) {
        lanes_at(level, at, quad_of_thread()) = a;
        if (k == 0) return;
        const std::int64_t unit = input_of(pass.layer[k], channel, y, x);
        for (int v = 0; v < QUAD; ++v) {
            const int row = PER_ROW ? group.row(pass, min(quad_of_thread() + v, group.lanes - 1)) : 0;
            const Lines<T> lines = lines_of<T>(pass.layer[k - 1], pass.rule, group.p, group.b, unit, row);
            a.at[v] *= a.at[v] < T(0) ? lines.upper_slope : lines.lower_slope;
        }
    }
};

// The corner of the box that the lanes' coefficients pick, as the values to go up from; and the gradient of the box.
template <class T>
__device__ void start_at_corner(const Pass& pass, const PassGradient& gradient, const Group& group,
                                const Window& window, const T* upstream, const T* coefficients, T* values) {
    const Layer& layer = pass.layer[0];
    const std::int64_t n = layer.in_features(), units = std::int64_t(layer.in_channels) * window.area();
    const int quad = quad_of_thread();
    for (std::int64_t base = 0; base < units; base += WORKERS) {
        const std::int64_t at = base + worker_of_thread();
        std::int64_t unit = 0;
        Ends<T> sum = {T(0), T(0)};
        if (at < units) {
            const int pixel = static_cast<int>(at % window.area());
            unit = input_of(layer, static_cast<int>(at / window.area()), window.y0 + pixel / window.width(),
                            window.x0 + pixel % window.width());
            const T l = slice<T>(pass.x_lower, group.p, group.b)[unit];
            const T u = slice<T>(pass.x_upper, group.p, group.b)[unit];
            const Lanes<T> four = lanes_at(coefficients, at, quad);
            Lanes<T> value;
            for (int v = 0; v < QUAD; ++v) {
                const T a = four.at[v];
                value.at[v] = a > T(0) ? l : a < T(0) ? u : l / 2 + u / 2 + a;  // a: 0, or NaN
                (a < T(0) ? sum.upper : sum.lower) += upstream[quad + v] * a;
            }
            lanes_at(values, at, quad) = value;
        }
        if (gradient.box == nullptr) continue;
        sum = {over_quads(sum.lower), over_quads(sum.upper)};
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
template <class T, bool PER_ROW>
__device__ void through_lines(const Pass& pass, const PassGradient& gradient, const Group& group, int k,
                              const Window& window, const T* upstream, T* coefficients, T* values) {
    const Layer& layer = pass.layer[k];
    const std::int64_t pair = group.p * pass.samples + group.b, many = std::int64_t(layer.out_channels) * window.area();
    const std::int64_t units = units_before(pass, pass.layers - 1), before = units_before(pass, k);
    const bool lines_wanted = layer.relu && layer.around.are_lines() && gradient.lines != nullptr;
    const bool bounds_wanted = layer.relu && !layer.around.are_lines() && gradient.bounds != nullptr;
    const int quad = quad_of_thread();
    for (std::int64_t base = 0; base < many; base += WORKERS) {
        const std::int64_t at = base + worker_of_thread();
        const bool there = at < many;
        const int channel = static_cast<int>(at / window.area()), pixel = static_cast<int>(at % window.area());
        const int y = window.y0 + pixel / window.width(), x = window.x0 + pixel % window.width();
        const std::int64_t unit = (std::int64_t(channel) * layer.out_height + y) * layer.out_width + x;
        const auto sums_of = [&](int row) -> LineSums<T> {
            const std::int64_t slot = pair * (PER_ROW ? pass.rows : 1) + row;
            return {static_cast<T*>(gradient.lines) + slot * 4 * units + before + unit, units};
        };
        Lines<T> sum = {};       // of the thread's lanes, or, of lines by row, of
        bool shared_row = false;  // its first lane if that has the row of the lane before, another thread's
        if (there) {
            Lanes<T>& a = lanes_at(coefficients, at, quad);
            Lanes<T>& value = lanes_at(values, at, quad);
            Lines<T> lines = {};
            if (!PER_ROW) lines = lines_of<T>(layer, pass.rule, group.p, group.b, unit);
            for (int v = 0; v < QUAD; ++v) {
                const int lane = min(quad + v, group.lanes - 1), row = group.row(pass, lane);
                if (PER_ROW) lines = lines_of<T>(layer, pass.rule, group.p, group.b, unit, row);
                const bool negative = a.at[v] < T(0);
                const T each = upstream[quad + v] * a.at[v], product = each * value.at[v];
                const Lines<T> one = negative ? Lines<T>{T(0), T(0), product, each} : Lines<T>{product, each, T(0), T(0)};
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
        sum = {over_quads(sum.lower_slope), over_quads(sum.lower_intercept), over_quads(sum.upper_slope),
               over_quads(sum.upper_intercept)};
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
template <class T>
__device__ void through_specification(const Pass& pass, const PassGradient& gradient, const Group& group,
                                      const T* upstream, T* coefficients, const T* values) {
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

template <class T>
__device__ void rise(const Pass& pass, const Group& group, int k, const Window& in, const Window& out, const T* from,
                     T* to) {
    if (pass.layer[k].out_channels >= 5) {
        rise<T, 8>(pass, group, k, in, out, from, to);
    } else {
        rise<T, 4>(pass, group, k, in, out, from, to);
    }
}

template <class T, bool PER_ROW>
__device__ void back_propagate(const Pass& pass, const PassGradient& gradient, const Group& group, const T* upstream,
                               Window* windows, T* shared, T* low, T* high, T* saved, T* parameters) {
    const int last = pass.layers - 1;
    Trace<T, PER_ROW> trace = {pass, group, saved, windows, nullptr};
    walk_down(pass, group, low, high, trace);
    __syncthreads();
    start_at_corner(pass, gradient, group, windows[0], upstream, saved, low);
    const bool only_box = gradient.parameters == nullptr && gradient.C == nullptr && gradient.bounds == nullptr &&
                          gradient.lines == nullptr;
    for (int k = 0; k < last && !only_box; ++k) {
        __syncthreads();
        const Window in = windows[k], out = same_image(pass, k + 1) ? windows[k + 1] : whole_output(pass.layer[k]);
        rise(pass, group, k, in, out, low, high);
        __syncthreads();
        T* coefficients = saved_at(pass, saved, k + 1);
        through_lines<T, PER_ROW>(pass, gradient, group, k, out, upstream, coefficients, high);
        __syncthreads();
        if (gradient.parameters != nullptr) {
            add_products(pass, k, in, out, coefficients, low, parameters, shared);
        }
        T* swap = low;
        low = high, high = swap;
    }
    __syncthreads();
    if (only_box) return;
    if (pass.C.data == nullptr) {
        if (gradient.parameters != nullptr) {
            add_own_products(pass, group, windows[last], upstream, low, parameters);
        }
    } else {
        const Window out = whole_output(pass.layer[last]);
        rise(pass, group, last, windows[last], out, low, high);
        __syncthreads();
        T* coefficients = saved_at(pass, saved, pass.layers);
        through_specification(pass, gradient, group, upstream, coefficients, high);
        __syncthreads();
        if (gradient.parameters != nullptr) {
            add_products(pass, last, windows[last], out, coefficients, low, parameters, shared);
        }
    }
    __syncthreads();  // the next group overwrites it all
}

// The upstream gradient of an entry of the visiting order: twice the row's place, and 1 for an upper bound.
template <class T>
__device__ __forceinline__ T upstream_of(const Pass& pass, const PassGradient& gradient, std::int64_t pair, int first,
                                         int word) {
    const void* from = word % 2 == 0 ? gradient.lower : gradient.upper;
    if (from == nullptr) return T(0);
    return static_cast<const T*>(from)[pair * pass.rows + row_at(pass, first + word / 2)];
}

template <class T, bool PER_ROW>
__global__ void __launch_bounds__(THREADS, 2)
    general_backward_kernel(const Pass pass, const PassGradient gradient, const Layout layout, const int per_member,
                            const std::int64_t first_member) {
    GLSK_SHARED(memory);
    T* upstream = reinterpret_cast<T*>(memory);
    T* shared = upstream + LANES;
    Window* windows = reinterpret_cast<Window*>(shared + WeightTile<T>::SHARED);
    int* list = reinterpret_cast<int*>(windows + pass.layers);
    int* counts = list + 2 * CHUNK;
    T* own = static_cast<T*>(pass.workspace) + layout.end * blockIdx.x;
    const std::int64_t p = first_member + blockIdx.x / per_member;
    for (std::int64_t i = layout.parameters + threadIdx.x; i < layout.end; i += THREADS) own[i] = T(0);
    for (std::int64_t b = blockIdx.x % per_member; b < pass.samples; b += per_member) {
        const std::int64_t pair = p * pass.samples + b;
        for (int first = 0; first < pass.rows; first += CHUNK) {
            compact(
                2 * min(CHUNK, pass.rows - first),
                [&](int word) { return upstream_of<T>(pass, gradient, pair, first, word) != T(0); }, list, counts);
            const int found = counts[THREADS];
            for (int i = 0; i < found; i += LANES) {
                const Group group = {p, b, min(LANES, found - i), first, list + i};
                if (threadIdx.x < LANES) {
                    const int lane = threadIdx.x;
                    T each = T(0);
                    if (lane < group.lanes) each = upstream_of<T>(pass, gradient, pair, first, group.words[lane]);
                    upstream[lane] = lane < group.lanes && group.negated(pass, lane) ? -each : each;
                }
                __syncthreads();
                back_propagate<T, PER_ROW>(pass, gradient, group, upstream, windows, shared, own, own + layout.to,
                                           own + layout.saved, own + layout.parameters);
            }
            __syncthreads();  // the next chunk overwrites the list
        }
    }
}

// How many thread blocks there are room for.
std::int64_t room(const Layout& layout, std::size_t size) {
    return std::max<std::int64_t>(1, std::min<std::int64_t>(BLOCKS, WORKSPACE / (layout.end * std::int64_t(size))));
}

template <class T>
void run(Pass pass, const PassGradient& gradient, void* stream, const Allocate& allocate) {
    const Layout layout(pass);
    const std::int64_t most = room(layout, sizeof(T));
    const int per_member = static_cast<int>(std::min(pass.samples, std::max<std::int64_t>(1, most / pass.members)));
    const std::int64_t at_once = std::min(pass.members, std::max<std::int64_t>(1, most / per_member));
    pass.workspace = allocate(at_once * per_member * layout.end * sizeof(T));
    const std::size_t shared =
        (LANES + WeightTile<T>::SHARED) * sizeof(T) + pass.layers * sizeof(Window) + (2 * CHUNK + THREADS + 1) * sizeof(int);
    const auto kernel = lines_per_row(pass) ? general_backward_kernel<T, true> : general_backward_kernel<T, false>;
    const std::int64_t size = Parameters(pass, pass.layers - 1).end;
    for (std::int64_t p = 0; p < pass.members; p += at_once) {
        const std::int64_t members = std::min(at_once, pass.members - p);
        launch("the gradient of a pass", kernel, static_cast<unsigned>(members * per_member), THREADS, shared, stream,
               pass, gradient, layout, per_member, p);
        if (gradient.parameters == nullptr) continue;
        sum_parts(static_cast<const T*>(pass.workspace) + layout.parameters,
                  static_cast<T*>(gradient.parameters) + p * size, members, size, layout.end, per_member, stream);
    }
}

}  // namespace

void run_pass_backward(const Pass& pass, const PassGradient& gradient, bool is_double, void* stream,
                       const Allocate& allocate) {
    if (is_double) {
        run<double>(pass, gradient, stream, allocate);
    } else {
        run<float>(pass, gradient, stream, allocate);
    }
}

std::size_t backward_block_bytes(const Pass& pass, bool is_double) {
    return Layout(pass).end * (is_double ? sizeof(double) : sizeof(float));
}

std::int64_t backward_blocks(const Pass& pass, bool is_double) {
    return room(Layout(pass), is_double ? sizeof(double) : sizeof(float));
}

}  // namespace glsk::cuda
