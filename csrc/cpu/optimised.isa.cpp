// Passes with slopes found for every row, of one instruction set.
#include "cpu/optimised.h"

namespace glsk {
namespace GLSK_ISA {

bool optimised_f32(const OptimisedArgs<float>& a) { return run_optimised<float>(a); }
bool optimised_f64(const OptimisedArgs<double>& a) { return run_optimised<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
