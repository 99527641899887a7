"""How fast a machine scores prompts, and how fast it could: what ``apportion bench`` and ``benchmarks/`` share.

A time says little on its own. Beside it stand the arithmetic that the answer takes at the least (``tree``, ``floor``)
and the rate at which the same machine, in the same minute, multiplies matrices (``gemm``).
"""
