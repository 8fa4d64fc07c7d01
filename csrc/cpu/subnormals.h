// Numbers below the least normal one count as zero while an object of this kind lives, on the thread that made it.
// The gradients of a softmax are full of them, and arithmetic with them takes a hundred times as long.
#pragma once

#include <cstdint>

namespace glsk {
namespace GLSK_ISA {

class NoSubnormals {
 public:
#if defined(__SSE__)
  NoSubnormals() : before(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before | FLUSH | AS_ZERO); }
  ~NoSubnormals() { __builtin_ia32_ldmxcsr(before); }

 private:
  static constexpr unsigned FLUSH = 0x8000, AS_ZERO = 0x0040;  // of results; of operands
  const unsigned before;
#elif defined(__aarch64__)
  NoSubnormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | FLUSH));
  }
  ~NoSubnormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }

 private:
  static constexpr uint64_t FLUSH = uint64_t(1) << 24;
  uint64_t before;
#else
  NoSubnormals() {}
  ~NoSubnormals() {}
#endif
  NoSubnormals(const NoSubnormals&) = delete;
  NoSubnormals& operator=(const NoSubnormals&) = delete;
};

}  // namespace GLSK_ISA
}  // namespace glsk
