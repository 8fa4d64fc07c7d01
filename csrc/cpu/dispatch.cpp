#include "cpu/dispatch.h"

#include <atomic>

namespace glsk {

#define GLSK_DECLARE_OF(T, suffix)                           \
  bool pass_##suffix(const PassArgs<T>&);                    \
  bool pass_backward_##suffix(const PassGradientArgs<T>&);   \
  bool ibp_##suffix(const IbpArgs<T>&);                      \
  bool ibp_backward_##suffix(const IbpGradientArgs<T>&);     \
  bool chain_##suffix(const ChainArgs<T>&);                  \
  bool chain_backward_##suffix(const ChainGradientArgs<T>&); \
  bool optimised_##suffix(const OptimisedArgs<T>&);          \
  bool branch_##suffix(const BranchArgs<T>&);                \
  bool plane_search_##suffix(const PlaneSearchArgs<T>&);     \
  bool ascent_##suffix(const AscentArgs<T>&);
#define GLSK_KERNELS_OF(isa, suffix)                                                                              \
  {isa::pass_##suffix,         isa::pass_backward_##suffix,  isa::ibp_##suffix,       isa::ibp_backward_##suffix, \
   isa::chain_##suffix,        isa::chain_backward_##suffix, isa::optimised_##suffix, isa::branch_##suffix,       \
   isa::plane_search_##suffix, isa::ascent_##suffix}
#define GLSK_DECLARE(isa)      \
  namespace isa {              \
  GLSK_DECLARE_OF(float, f32)  \
  GLSK_DECLARE_OF(double, f64) \
  }                            \
  static const Kernels isa##_kernels = {#isa, GLSK_KERNELS_OF(isa, f32), GLSK_KERNELS_OF(isa, f64)};

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
