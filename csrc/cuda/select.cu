// Which kernel serves which pass, and what a device can run.
#include "kernels.h"
#include "platform.cuh"

namespace glsk::cuda {

std::string select_pass(const Pass& pass, bool is_double) {
    if (!is_double && fits_patch(pass)) return "patch";
    if (!is_double && fits_margins(pass)) return "margins";
    return "general";
}

std::string run_pass(Pass pass, bool is_double, const std::string& variant, void* stream, const Allocate& allocate) {
    const std::string best = select_pass(pass, is_double);
    if (!variant.empty() && variant != best && variant != "general") {
        throw std::invalid_argument("CUDA: the " + variant + " kernel does not serve this pass");
    }
    const std::string chosen = variant.empty() ? best : variant;
    if (chosen == "patch") {
        run_patch(pass, stream);
    } else if (chosen == "margins") {
        run_margins(pass, stream);
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
