// The passes of one instruction set, and interval steps.
#include "cpu/pass.h"

namespace glsk {
namespace GLSK_ISA {

bool pass_f32(const PassArgs<float>& a) { return run_pass<float>(a); }
bool pass_f64(const PassArgs<double>& a) { return run_pass<double>(a); }
bool ibp_f32(const IbpArgs<float>& a) { return run_ibp<float>(a); }
bool ibp_f64(const IbpArgs<double>& a) { return run_ibp<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
