// The gradients of one instruction set in one precision, and slopes found by them: half of a long compilation.
#include "cpu/chain_backward.h"
#include "cpu/ibp_step_backward.h"
#include "cpu/optimised.h"
#include "cpu/pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

bool chain_backward_f32(const ChainGradientArgs<float>& a) { return run_chain_backward<float>(a); }
bool pass_backward_f32(const PassGradientArgs<float>& a) { return run_pass_backward<float>(a); }
bool ibp_backward_f32(const IbpGradientArgs<float>& a) { return run_ibp_backward<float>(a); }
bool optimised_f32(const OptimisedArgs<float>& a) { return run_optimised<float>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
