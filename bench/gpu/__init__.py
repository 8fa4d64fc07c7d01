"""Everything there is to check on a machine with a GPU: ``python -m bench.gpu.check``."""
