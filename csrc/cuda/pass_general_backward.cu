// The gradient of a pass of any chain, with no tape: a group of lanes walks down as in the general pass, and its
// coefficients of every layer stay in the thread block's workspace; then up again (general_rise.cuh), giving each operand
// its part (general_gradient.cuh).
//
// A thread block keeps to one member, and takes every nth sample of it: what it adds up for the member's parameters lies
// in its own workspace, and another kernel adds up the blocks in order. What belongs to one (member, sample) it adds up
// in place. So the same call gives the same bits. Rows whose upstream gradient is zero are not visited.
#include "general_gradient.cuh"
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
