# The compiled CUDA kernels (csrc/cuda/bindings.cpp), called by glsk/cuda.py.
from typing import Any

def __getattr__(name: str) -> Any: ...
