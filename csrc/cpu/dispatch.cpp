#include "cpu/dispatch.h"

#include <atomic>

namespace glsk {

#define GLSK_DECLARE(isa)                                                                                    \
  namespace isa {                                                                                            \
  bool pass_f32(const PassArgs<float>&);                                                                     \
  bool pass_f64(const PassArgs<double>&);                                                                    \
  bool ibp_f32(const IbpArgs<float>&);                                                                       \
  bool ibp_f64(const IbpArgs<double>&);                                                                      \
  bool chain_f32(const ChainArgs<float>&);                                                                   \
  bool chain_f64(const ChainArgs<double>&);                                                                  \
  }                                                                                                          \
  static const Kernels isa##_kernels = {#isa,         isa::pass_f32,  isa::pass_f64, isa::ibp_f32, isa::ibp_f64, \
                                        isa::chain_f32, isa::chain_f64};

GLSK_DECLARE(portable)
#if GLSK_X86
GLSK_DECLARE(avx2)
GLSK_DECLARE(avx512)
#endif

static std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> found;
#if GLSK_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512_kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2_kernels);
#endif
  found.push_back(&portable_kernels);
  return found;
}

static std::atomic<const Kernels*>& selected() {
  static std::atomic<const Kernels*> chosen{supported().front()};
  return chosen;
}

const Kernels& kernels() { return *selected(); }

bool select_isa(const std::string& name) {
  for (const Kernels* k : supported()) {
    if (name == k->name) {
      selected() = k;
      return true;
    }
  }
  return false;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* k : supported()) names.push_back(k->name);
  return names;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if GLSK_X86
  __builtin_cpu_init();
#define GLSK_FEATURE(name) \
  if (__builtin_cpu_supports(name)) found.push_back(name);
  GLSK_FEATURE("sse4.2")
  GLSK_FEATURE("avx")
  GLSK_FEATURE("avx2")
  GLSK_FEATURE("fma")
  GLSK_FEATURE("avx512f")
  GLSK_FEATURE("avx512bw")
  GLSK_FEATURE("avx512dq")
  GLSK_FEATURE("avx512vl")
#endif
  return found;
}

}  // namespace glsk
