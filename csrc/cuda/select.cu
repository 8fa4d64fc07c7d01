// Which kernel serves which pass, and what a device can run.
#include "kernels.h"
#include "platform.cuh"

namespace glsk::cuda {

namespace {

bool serves(const std::string& variant, const Pass& pass, bool is_double) {
    if (variant == "general") return true;
    if (is_double) return false;
    if (variant == "patch") return fits_patch(pass);
    if (variant == "margins") return fits_margins(pass);
    return variant == "deep" && fits_deep(pass);
}

}  // namespace

std::string select_pass(const Pass& pass, bool is_double) {
    if (serves("patch", pass, is_double)) return "patch";
    if (serves("margins", pass, is_double)) return "margins";
    if (!is_double && prefers_deep(pass)) return "deep";
    return "general";
}

std::string run_pass(Pass pass, bool is_double, const std::string& variant, void* stream, const Allocate& allocate) {
    const std::string chosen = variant.empty() ? select_pass(pass, is_double) : variant;
    if (!serves(chosen, pass, is_double)) {
        throw std::invalid_argument("CUDA: the " + variant + " kernel does not serve this pass");
    }
    if (chosen == "patch") {
        run_patch(pass, stream);
    } else if (chosen == "margins") {
        run_margins(pass, stream);
    } else if (chosen == "deep") {
        run_deep(pass, stream, allocate);
    } else {
        run_general(pass, is_double, stream, allocate);
    }
    return chosen;
}

OnDevice::OnDevice(int device) : guard_(new DeviceGuard(device)) {}
OnDevice::~OnDevice() { delete static_cast<DeviceGuard*>(guard_); }

__global__ void probe_kernel() {}

std::string why_unusable(int device) {
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) return cudaGetErrorString(status);
    if (device >= count) return "there is no CUDA device " + std::to_string(device);
    DeviceGuard guard(device);
    cudaFuncAttributes attributes;
    status = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (status == cudaSuccess) return "";
    cudaGetLastError();  // the failed look-up must not be reported by the next launch
    return std::string(cudaGetErrorString(status)) + " (compute capability " +
           std::to_string(attribute(cudaDevAttrComputeCapabilityMajor)) + "." +
           std::to_string(attribute(cudaDevAttrComputeCapabilityMinor)) + ")";
}

}  // namespace glsk::cuda
