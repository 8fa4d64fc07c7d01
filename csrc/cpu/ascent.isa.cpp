// Adversarial points, of one instruction set.
#include "cpu/ascent.h"

namespace glsk {
namespace GLSK_ISA {

bool ascent_f32(const AscentArgs<float>& a) { return run_ascent<float>(a); }
bool ascent_f64(const AscentArgs<double>& a) { return run_ascent<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
