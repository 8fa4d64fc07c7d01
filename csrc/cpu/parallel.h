// Threads over tasks, and the scratch memory they work in. Which thread does a task never changes its result.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#define GLSK_ALIGN 64

namespace glsk {
namespace GLSK_ISA {

// Uninitialised, aligned for whole cache lines; null when there is no memory. Release with free().
template <class T>
inline T* allocate(int64_t count) {
  const int64_t bytes = (count * int64_t(sizeof(T)) / GLSK_ALIGN + 1) * GLSK_ALIGN;
  return static_cast<T*>(aligned_alloc(GLSK_ALIGN, size_t(bytes)));
}

// body(thread, first, last) over [0, tasks) in contiguous ranges, handed out a few to a thread so that the last one to
// finish is not late by much.
template <class Body>
inline void parallel_ranges(int threads, int64_t tasks, const Body& body) {
  const int64_t pieces = threads == 1 ? 1 : (tasks < 8 * int64_t(threads) ? tasks : 8 * int64_t(threads));
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
#endif
  for (int64_t piece = 0; piece < pieces; ++piece) {
#ifdef _OPENMP
    const int thread = omp_get_thread_num();
#else
    const int thread = 0;
#endif
    body(thread, tasks * piece / pieces, tasks * (piece + 1) / pieces);
  }
}

// As allocate, of zeros.
template <class T>
inline T* zeroed(int64_t count) {
  return static_cast<T*>(calloc(size_t(count), sizeof(T)));
}

// One worker a thread, of which `tasks` are at most needed; null if there is no memory for them.
template <class Worker, class Args>
class Crew {
 public:
  Crew(const Args& args, int64_t tasks, int threads_) : threads(tasks < threads_ ? int(tasks) : threads_) {
    workers = zeroed<Worker*>(threads);
    ready = workers != nullptr;
    for (int i = 0; ready && i < threads; ++i) {
      workers[i] = new (std::nothrow) Worker(args);
      ready = workers[i] && workers[i]->prepare();
    }
  }
  ~Crew() {
    for (int i = 0; workers && i < threads; ++i) delete workers[i];
    free(workers);
  }
  Worker& operator[](int thread) { return *workers[thread]; }

  bool ready;
  const int threads;

 private:
  Worker** workers;
};

}  // namespace GLSK_ISA
}  // namespace glsk
