// Branch and bound's subproblems, for one instruction set.
#include "cpu/branch.h"

namespace glsk {
namespace GLSK_ISA {

bool branch_f32(const BranchArgs<float>& a) { return run_branch<float>(a); }
bool branch_f64(const BranchArgs<double>& a) { return run_branch<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
