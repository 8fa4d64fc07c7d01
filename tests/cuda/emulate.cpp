// What the tests of the emulated kernels switch, for ctypes.
#include "emulate.h"

// reversed: run the threads of a block backwards between barriers. shared_limit: bytes of shared memory of a block.
extern "C" void glsk_emulate(int reversed, int shared_limit, int multiprocessors) {
    emulate::reversed = reversed != 0;
    emulate::shared_limit = shared_limit;
    emulate::multiprocessors = multiprocessors;
}
