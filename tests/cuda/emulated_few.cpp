// In the place of kernels that take long to compile, in a program that calls others only.
#include <cstdlib>

#include "kernels.h"

namespace glsk::cuda {

bool fits_patch(const Pass&) { return false; }
void run_patch(Pass, void*) { std::abort(); }
void run_general(Pass, bool, void*, const Allocate&) { std::abort(); }
void run_pass_backward(const Pass&, const PassGradient&, bool, void*, const Allocate&) { std::abort(); }
void run_ibp(const Interval&, bool, void*) { std::abort(); }
void run_ibp_backward(const Interval&, const IntervalGradient&, bool, void*, const Allocate&) { std::abort(); }

}  // namespace glsk::cuda
