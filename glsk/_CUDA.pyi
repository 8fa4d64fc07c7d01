# The compiled CUDA kernels (csrc/cuda/bindings.cpp), called by glsk/backends/cuda_views.py.
from typing import Any

def __getattr__(name: str) -> Any: ...
