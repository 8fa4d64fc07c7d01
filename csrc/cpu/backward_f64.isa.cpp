// The gradients of one instruction set in one precision, and slopes found by them: half of a long compilation.
#include "cpu/chain_backward.h"
#include "cpu/ibp_step_backward.h"
#include "cpu/optimised.h"
#include "cpu/pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

bool chain_backward_f64(const ChainGradientArgs<double>& a) { return run_chain_backward<double>(a); }
bool pass_backward_f64(const PassGradientArgs<double>& a) { return run_pass_backward<double>(a); }
bool ibp_backward_f64(const IbpGradientArgs<double>& a) { return run_ibp_backward<double>(a); }
bool optimised_f64(const OptimisedArgs<double>& a) { return run_optimised<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
