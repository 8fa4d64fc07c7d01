// The gradients of one instruction set.
#include "cpu/chain_backward.h"
#include "cpu/ibp_step_backward.h"
#include "cpu/pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

bool chain_backward_f32(const ChainGradientArgs<float>& a) { return run_chain_backward<float>(a); }
bool chain_backward_f64(const ChainGradientArgs<double>& a) { return run_chain_backward<double>(a); }
bool pass_backward_f32(const PassGradientArgs<float>& a) { return run_pass_backward<float>(a); }
bool pass_backward_f64(const PassGradientArgs<double>& a) { return run_pass_backward<double>(a); }
bool ibp_backward_f32(const IbpGradientArgs<float>& a) { return run_ibp_backward<float>(a); }
bool ibp_backward_f64(const IbpGradientArgs<double>& a) { return run_ibp_backward<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
