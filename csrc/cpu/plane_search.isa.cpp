// Planes sought for rows, for one instruction set.
#include "cpu/plane_search.h"

namespace glsk {
namespace GLSK_ISA {

bool plane_search_f32(const PlaneSearchArgs<float>& a) { return run_plane_search<float>(a); }
bool plane_search_f64(const PlaneSearchArgs<double>& a) { return run_plane_search<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
