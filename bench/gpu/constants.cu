// What a device does, measured: fused multiply-adds, tensor-core products, bytes from L2 and from HBM, and its clock.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr int THREADS = 256, CHAINS = 8;

void check(cudaError_t status) {
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
    std::exit(1);
}

__global__ void multiply_adds(float* out, int rounds) {
    float sum[CHAINS];
    for (int i = 0; i < CHAINS; ++i) sum[i] = static_cast<float>(threadIdx.x + i);
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) sum[i] = fmaf(sum[i], 0.999f, 1e-3f);
    }
    float all = 0.f;
    for (int i = 0; i < CHAINS; ++i) all += sum[i];
    out[blockIdx.x * THREADS + threadIdx.x] = all;
}

__global__ void products(float* out, int rounds) {
    float d[CHAINS][4] = {};
    const unsigned a = 0x3f803f80u, b = 0x3c003c00u + threadIdx.x;
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) {
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, "
                "{%5, %5}, {%0, %1, %2, %3};"
                : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3]) : "r"(a), "r"(b));
        }
    }
    float all = 0.f;
    for (int i = 0; i < CHAINS; ++i) all += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    out[blockIdx.x * THREADS + threadIdx.x] = all;
}

// Every block reads all of a buffer that fits the L2 cache and not L1.
__global__ void reads(const float4* from, float* out, long long count, int rounds) {
    float sum = 0.f;
    for (int round = 0; round < rounds; ++round) {
        const long long start = (blockIdx.x * 977LL + round * 131LL) * THREADS;
        for (long long i = threadIdx.x; i < count; i += THREADS) {
            const float4 four = __ldcg(from + (start + i) % count);
            sum += four.x + four.y + four.z + four.w;
        }
    }
    out[blockIdx.x * THREADS + threadIdx.x] = sum;
}

// Cycles of one multiprocessor against the device's nanoseconds, while all are busy.
__global__ void clocks(float* out, long long* cycles, long long* nanoseconds, int rounds) {
    const long long first = clock64();
    long long begin, end;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    float sum = static_cast<float>(threadIdx.x);
    for (int round = 0; round < rounds; ++round) sum = fmaf(sum, 0.999f, 1e-3f);
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(end));
    if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = clock64() - first, *nanoseconds = end - begin;
    out[blockIdx.x * THREADS + threadIdx.x] = sum;
}

// All blocks together read a buffer that fits no cache, once.
__global__ void streams(const float4* from, float* out, long long count) {
    float sum = 0.f;
    for (long long i = blockIdx.x * static_cast<long long>(THREADS) + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        const float4 four = __ldcs(from + i);
        sum += four.x + four.y + four.z + four.w;
    }
    out[blockIdx.x * THREADS + threadIdx.x] = sum;
}

template <class Launch>
double seconds(Launch launch) {
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin)), check(cudaEventCreate(&end));
    launch();
    float best = 1e30f;
    for (int i = 0; i < 5; ++i) {
        float ms = 0.f;
        check(cudaEventRecord(begin)), launch(), check(cudaEventRecord(end));
        check(cudaEventSynchronize(end)), check(cudaEventElapsedTime(&ms, begin, end));
        best = ms < best ? ms : best;
    }
    check(cudaGetLastError());
    return best * 1e-3;
}

}  // namespace

int main() {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    const int blocks = device.multiProcessorCount * 8;
    const long long bytes = 16LL << 20, count = bytes / 16, far = 2LL << 30;
    float* out;
    float4* buffer;
    long long* times;
    check(cudaMalloc(&out, blocks * THREADS * sizeof(float))), check(cudaMalloc(&buffer, far));
    check(cudaMalloc(&times, 2 * sizeof(long long))), check(cudaMemset(buffer, 0, far));
    const int rounds = 20000, few = 2;
    const double threads = double(blocks) * THREADS;
    const double fma = threads * rounds * CHAINS / seconds([&] { multiply_adds<<<blocks, THREADS>>>(out, rounds); });
    const double mma = threads / 32 * rounds * CHAINS / seconds([&] { products<<<blocks, THREADS>>>(out, rounds); });
    const double l2 = double(blocks) * few * bytes / seconds([&] { reads<<<blocks, THREADS>>>(buffer, out, count, few); });
    const double hbm = far / seconds([&] { streams<<<blocks, THREADS>>>(buffer, out, far / 16); });
    seconds([&] { clocks<<<blocks, THREADS>>>(out, times, times + 1, 200000); });
    long long measured[2];
    check(cudaMemcpy(measured, times, sizeof measured, cudaMemcpyDeviceToHost));
    std::printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"clock_hz\": %.4g, \"fma_per_s\": %.4g, "
                "\"mma_m16n8k16_per_s\": %.4g, \"l2_bytes_per_s\": %.4g, \"hbm_bytes_per_s\": %.4g}\n",
                device.name, device.multiProcessorCount, 1e9 * double(measured[0]) / double(measured[1]), fma, mma, l2, hbm);
    return 0;
}
