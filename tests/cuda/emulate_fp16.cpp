// FP16 numbers, rounded as the instructions round: to the nearest, ties to even.
#include "emulate.h"

namespace glsk::cuda {

namespace {

// Of a pair's halves; double holds what comes of them to more bits than decide how it is rounded.
template <class Function>
unsigned each(unsigned a, unsigned b, unsigned c, Function function) {
    unsigned pair = 0;
    for (const unsigned half : {0, 16}) {
        const auto of = [half](unsigned pairs) { return double(from_fp16(pairs >> half & 0xffff)); };
        pair |= to_fp16(function(of(a), of(b), of(c))) << half;
    }
    return pair;
}

}  // namespace

unsigned greater_fp16(unsigned a, unsigned b) {
    return each(a, b, 0, [](double x, double y, double) { return x > y ? 1. : 0.; });
}
unsigned negative_fp16(unsigned a) {
    return each(a, 0, 0, [](double x, double, double) { return x > 0 ? 0. : x; });
}
unsigned positive_product_fp16(unsigned a, unsigned b) {
    return each(a, b, 0, [](double x, double y, double) { return x * y > 0 ? x * y : 0.; });
}
unsigned fma_fp16(unsigned a, unsigned b, unsigned c) {
    return each(a, b, c, [](double x, double y, double z) { return x * y + z; });
}

float from_fp16(std::uint32_t bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const float fraction = static_cast<float>(bits & 1023) / 1024;
    const float size = exponent == 31  ? (fraction == 0 ? HUGE_VALF : NAN)
                       : exponent == 0 ? std::ldexp(fraction, -14)
                                       : std::ldexp(1 + fraction, exponent - 15);
    return bits >> 15 & 1 ? -size : size;
}

std::uint32_t to_fp16(double value) {
    if (std::isnan(value)) return 0x7fff;
    const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (size >= 65520) return sign | 0x7c00;
    if (size < std::ldexp(1., -14)) return sign | static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 24)));
    int exponent;
    const double fraction = 2 * std::frexp(size, &exponent) - 1;  // of size = (1 + fraction) 2^(exponent - 1)
    // A fraction that is rounded up to 1 carries into the exponent.
    return sign | ((static_cast<std::uint32_t>(exponent + 14) << 10) +
                   static_cast<std::uint32_t>(std::nearbyint(fraction * 1024)));
}

}  // namespace glsk::cuda

// For ctypes.
extern "C" int glsk_emulate_to_fp16(double value) { return static_cast<int>(glsk::cuda::to_fp16(value)); }
extern "C" float glsk_emulate_from_fp16(int bits) { return glsk::cuda::from_fp16(static_cast<std::uint32_t>(bits)); }
