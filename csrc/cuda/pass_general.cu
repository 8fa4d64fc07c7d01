// The pass of any chain: coefficients in a bounded workspace in global memory, which is meant to stay in the L2 cache.
#include "general_walk.cuh"

namespace glsk::cuda {
namespace {

constexpr int LANES = 32, WORKERS = WORKERS_OF<LANES>;
constexpr int MAX_CHUNK = 512;                 // rows of a chunk, a multiple of LANES
constexpr std::int64_t WORKSPACE = 256 << 20;  // bytes; more only if one thread block needs more

// The group of lanes that a thread block is at: a row's lower and, with both sides, its upper bound.
struct Group {
    static constexpr int LANES = 32;
    std::int64_t p, b;
    int rows, lanes;   // rows in the group; lanes = rows * signs
    const int* order;  // visiting order of each row, relative to first
    int first;

    __device__ int row(const Pass& pass, int lane) const { return row_at(pass, first + order[lane / pass.signs]); }
    __device__ bool negated(const Pass& pass, int lane) const { return lane % pass.signs == 1; }
    __device__ int step(const Pass& pass) const { return pass.signs; }  // to a lane of the next row
};

// Coefficients go through the lines and the bias of the layer below, or meet the box; constants add up. PER_ROW: lines
// differ by the row.
template <class T, bool PER_ROW>
struct Bound {
    const Pass& pass;
    const Group& group;
    T sum[QUAD];  // four lanes' constants and, at the end, results

    __device__ void begin(int, const Window&) {}
    __device__ void constant(int v, T amount) { sum[v] += amount; }

    __device__ void operator()(int k, int channel, int y, int x, std::int64_t, Lanes<T>& a) {
        const std::int64_t unit = input_of(pass.layer[k], channel, y, x);
        if (k == 0) {
            T center, radius;
            center_radius<T>(pass, group.p, group.b, unit, center, radius);
            for (int v = 0; v < QUAD; ++v) {
                sum[v] += a.at[v] * center - (a.at[v] < T(0) ? -a.at[v] : a.at[v]) * radius;
            }
            return;
        }
        const Layer& below = pass.layer[k - 1];
        const T bias = bias_of<T>(below, group.p, channel_below(below, unit));
        if (PER_ROW) {
            for (int v = 0; v < QUAD; ++v) {
                const int lane = min(quad_of_thread<LANES>() + v, group.lanes - 1);
                const Steps<T> steps(lines_of<T>(below, pass.rule, group.p, group.b, unit, group.row(pass, lane)),
                                     bias);
                a.at[v] = steps.apply(a.at[v], sum[v]);
            }
            return;
        }
        const Steps<T> steps(lines_of<T>(below, pass.rule, group.p, group.b, unit), bias);
        for (int v = 0; v < QUAD; ++v) a.at[v] = steps.apply(a.at[v], sum[v]);
    }
};

// Adds up the threads' constants in a fixed order and writes the results.
template <class T>
__device__ void finish(const Pass& pass, const Group& group, const T (&sum)[QUAD], T* sums) {
    const int me = threadIdx.x;
    for (int v = 0; v < QUAD; ++v) sums[worker_of_thread<LANES>() * LANES + quad_of_thread<LANES>() + v] = sum[v];
    __syncthreads();
    if (me < group.lanes) {
        T total = T(0);
        for (int worker = 0; worker < WORKERS; ++worker) total += sums[worker * LANES + me];
        const bool upper = group.negated(pass, me);
        T* out = static_cast<T*>(upper ? pass.upper : pass.lower) + (group.p * pass.samples + group.b) * pass.rows;
        total = sound(total);
        out[group.row(pass, me)] = upper ? -total : total;
    }
    __syncthreads();
}

template <class T, bool PER_ROW>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 3 : 2) general_kernel(const Pass pass) {
    GLSK_SHARED(memory);
    T* sums = reinterpret_cast<T*>(memory);
    int* list = reinterpret_cast<int*>(sums + WORKERS * LANES);
    int* counts = list + pass.chunk;
    T* from = static_cast<T*>(pass.workspace) + 2 * pass.workspace_per_block * blockIdx.x;
    const std::int64_t jobs = pass.members * pass.samples * pass.chunks;
    for (std::int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
        const std::int64_t pair = job / pass.chunks;
        const int first = static_cast<int>(job % pass.chunks) * pass.chunk;
        Group group = {pair / pass.samples, pair % pass.samples, 0, 0, list, first};
        const int size = min(pass.chunk, pass.rows - first);
        unstable_rows<T>(pass, group.p, group.b, group.first, size, list, counts);
        const int unstable = counts[THREADS], most = LANES / pass.signs;
        for (int i = 0; i < unstable; i += most) {
            group.order = list + i;
            group.rows = min(most, unstable - i);
            group.lanes = group.rows * pass.signs;
            Bound<T, PER_ROW> bound = {pass, group, {}};
            walk_down(pass, group, from, from + pass.workspace_per_block, bound);
            finish(pass, group, bound.sum, sums);
        }
    }
}

template <class T>
void run(Pass pass, void* stream, const Allocate& allocate) {
    pass.workspace_per_block = widest(pass) * LANES;
    const std::size_t per_block = 2 * pass.workspace_per_block * sizeof(T);

    // Small chunks keep all multiprocessors busy when there are few pairs.
    const std::int64_t pairs = pass.members * pass.samples;
    const std::int64_t slots = 3 * attribute(cudaDevAttrMultiProcessorCount), group = LANES / pass.signs;
    const std::int64_t share = pass.rows * pairs / (2 * slots) / group * group;
    pass.chunk = static_cast<int>(std::max(group, std::min<std::int64_t>(MAX_CHUNK, share)));
    pass.chunks = divide_up(pass.rows, pass.chunk);

    const std::int64_t room = std::max<std::int64_t>(1, WORKSPACE / per_block);
    const unsigned grid = static_cast<unsigned>(std::min({pairs * pass.chunks, slots, room}));
    pass.workspace = allocate(grid * per_block);
    const std::size_t shared = WORKERS * LANES * sizeof(T) + (pass.chunk + THREADS + 1) * sizeof(int);
    const auto kernel = lines_per_row(pass) ? general_kernel<T, true> : general_kernel<T, false>;
    launch("the general kernel", kernel, grid, THREADS, shared, stream, pass);
}

}  // namespace

void run_general(Pass pass, bool is_double, void* stream, const Allocate& allocate) {
    if (is_double) {
        run<double>(pass, stream, allocate);
    } else {
        run<float>(pass, stream, allocate);
    }
}

}  // namespace glsk::cuda
