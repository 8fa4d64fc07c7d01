// In the place of kernels that take long to compile and are not there, in a program that calls others only.
#include <cstdlib>

#include "kernels.h"

#define GLSK_IF_MISSING __attribute__((weak))

namespace glsk::cuda {

GLSK_IF_MISSING bool fits_patch(const Pass&) { return false; }
GLSK_IF_MISSING bool fits_deep(const Pass&) { return false; }
GLSK_IF_MISSING bool prefers_deep(const Pass&) { return false; }
GLSK_IF_MISSING void run_patch(Pass, void*) { std::abort(); }
GLSK_IF_MISSING void run_deep(Pass, void*, const Allocate&) { std::abort(); }
GLSK_IF_MISSING void run_general(Pass, bool, void*, const Allocate&) { std::abort(); }
GLSK_IF_MISSING void run_pass_backward(const Pass&, const PassGradient&, bool, void*, const Allocate&) { std::abort(); }
GLSK_IF_MISSING void run_ibp(const Interval&, bool, void*) { std::abort(); }
GLSK_IF_MISSING void run_ibp_backward(const Interval&, const IntervalGradient&, bool, void*, const Allocate&) {
    std::abort();
}

}  // namespace glsk::cuda
