// Whole chains, of one instruction set.
#include "cpu/chain.h"

namespace glsk {
namespace GLSK_ISA {

bool chain_f32(const ChainArgs<float>& a) { return run_chain<float>(a); }
bool chain_f64(const ChainArgs<double>& a) { return run_chain<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
