// The kernels behind run_pass, one file each. fits_*: whether a call has a shape the kernel serves on this device.
#pragma once

#include "api.h"

namespace glsk::cuda {

bool fits_patch(const Pass& pass);
bool fits_margins(const Pass& pass);
bool fits_deep(const Pass& pass);
bool prefers_deep(const Pass& pass);  // whether it fits and would fill a device
void run_patch(Pass pass, void* stream);
void run_margins(Pass pass, void* stream);
void run_deep(Pass pass, void* stream, const Allocate& allocate);
void run_general(Pass pass, bool is_double, void* stream, const Allocate& allocate);

}  // namespace glsk::cuda
