// What a kernel calls: barriers, and what a warp does together.
#include <string>

#include "emulate.h"
#include "emulate_blocks.h"
#include "emulate_switch.h"

namespace emulate {
namespace {

bool removed(const Site& at) {
    if (at.line != switches.without_line) return false;
    const std::string here = at.file, &file = switches.without_file;
    return here.size() >= file.size() && here.compare(here.size() - file.size(), file.size(), file) == 0;
}

unsigned lanes_of(const Fiber& fiber) {
    const unsigned lanes = std::min(WARP, fiber.block->threads - fiber.warp() * WARP);
    return lanes == WARP ? 0xffffffffu : (1u << lanes) - 1;
}

void warp_wait(unsigned mask, const Site& at, bool orders) {
    mask &= lanes_of(*running());
    if ((mask >> running()->lane() & 1) == 0) {
        // On the fiber, where nothing may be thrown: a barrier that is never complete.
        wait(State::at_warp_barrier, mask, WARP + 1, at, false);
    }
    wait(State::at_warp_barrier, mask, static_cast<unsigned>(__builtin_popcount(mask)), at, orders);
}

// What every lane of the warp gives, for all of them to read, once all have given. The next exchange uses other memory,
// so that a fast lane does not overwrite what a slow one still reads.
template <std::size_t SIZE>
const std::array<std::uint32_t, 6>* exchange(const std::array<std::uint32_t, SIZE>& mine, const Site& at) {
    Fiber& me = *running();
    auto& given = me.block->warps[me.warp()].given[me.turn ^= 1];
    std::copy(mine.begin(), mine.end(), given[me.lane()].begin());
    warp_wait(0xffffffffu, at, false);
    return given.data();
}

template <class Number>
void product(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4], const Site& at,
             Number number) {
    const unsigned lane = running()->lane(), g = lane / 4, t = lane % 4;
    const auto* given = exchange<6>({a.x, a.y, a.z, a.w, b0, b1}, at);
    float result[4];
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = i / 2, column = 2 * t + i % 2;
        double sum = c[i];
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned from = k % 8 / 2, half = 16 * (k % 2);
            const std::uint32_t left = given[4 * g + from][2 * (k / 8) + row] >> half & 0xffff;
            const std::uint32_t right = given[4 * column + from][4 + k / 8] >> half & 0xffff;
            sum += double(number(left)) * number(right);
        }
        result[i] = static_cast<float>(sum);
    }
    std::copy(result, result + 4, d);
}

}  // namespace

void named_barrier(unsigned id, unsigned threads, const char* file, int line) {
    const Site at = {file, line, __builtin_return_address(0)};
    if (!removed(at)) wait(State::at_block_barrier, id, threads, at, true);
}

}  // namespace emulate

void __syncthreads(const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    if (!emulate::removed(at)) {
        emulate::wait(emulate::State::at_block_barrier, 0, emulate::running()->block->threads, at, true);
    }
}

void __syncwarp(unsigned mask, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    if (!emulate::removed(at)) emulate::warp_wait(mask, at, true);
}

float __shfl_xor_sync(unsigned, float value, int lanes, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    const unsigned from = emulate::running()->lane() ^ static_cast<unsigned>(lanes);
    return __uint_as_float(emulate::exchange<1>({__float_as_uint(value)}, at)[from][0]);
}

double __shfl_xor_sync(unsigned, double value, int lanes, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    const unsigned from = emulate::running()->lane() ^ static_cast<unsigned>(lanes);
    std::array<std::uint32_t, 2> words;
    std::memcpy(words.data(), &value, 8);
    std::memcpy(&value, emulate::exchange<2>(words, at)[from].data(), 8);
    return value;
}

void glsk::cuda::mma_bf16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4], const char* file,
                          int line) {
    emulate::product(d, a, b0, b1, c, {file, line, __builtin_return_address(0)}, from_bf16);
}

void glsk::cuda::mma_fp16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4], const char* file,
                          int line) {
    emulate::product(d, a, b0, b1, c, {file, line, __builtin_return_address(0)}, from_fp16);
}
