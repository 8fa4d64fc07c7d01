// What bindings.cpp calls. Every function launches on a stream of a device and returns at once; errors are thrown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "types.h"

namespace glsk::cuda {

// Bytes of device memory -> pointer; the caller keeps it alive until the work on the stream that uses it is done.
using Allocate = std::function<void*(std::size_t)>;

// The kernels of a pass: "patch" and "margins" are made for the shapes of small networks, "deep" for many rows above
// strided convolutions, "general" takes every chain. variant: one of them, or "" for the best that fits. Returns the
// name of the one that ran.
std::string run_pass(Pass pass, bool is_double, const std::string& variant, void* stream, const Allocate& allocate);

// Which kernel run_pass would take.
std::string select_pass(const Pass& pass, bool is_double);

// Bytes that the deep kernel would ask for.
std::size_t deep_workspace(const Pass& pass);

// The gradient of a pass, by the general kernels, whatever ran forwards; and the bytes of one thread block of it, of which
// there are at most backward_blocks.
void run_pass_backward(const Pass& pass, const PassGradient& gradient, bool is_double, void* stream,
                       const Allocate& allocate);
std::size_t backward_block_bytes(const Pass& pass, bool is_double);
std::int64_t backward_blocks(const Pass& pass, bool is_double);

void run_ibp(const Interval& interval, bool is_double, void* stream);
void run_ibp_backward(const Interval& interval, const IntervalGradient& gradient, bool is_double, void* stream,
                      const Allocate& allocate);
void run_hbox_relu(const void* box_lower, const void* box_upper, const void* lower, const void* upper, void* out_lower,
                   void* out_upper, double leak, std::int64_t size, bool is_double, void* stream);
void run_robust_cross_entropy(const View& margins, std::int64_t members, std::int64_t samples, std::int64_t rows,
                              void* loss, bool is_double, void* stream);

// Makes device current for the scope of a call, and finds out whether this build has code for it.
struct OnDevice {
    explicit OnDevice(int device);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

   private:
    void* guard_;
};

// Empty if this build can run on the device, else one line that says why not.
std::string why_unusable(int device);

}  // namespace glsk::cuda
