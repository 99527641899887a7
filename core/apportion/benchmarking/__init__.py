"""Benchmarks shared by ``apportion bench`` and ``benchmarks/``: the speed at which a machine scores prompts.

A time means little on its own. It is compared with the minimum arithmetic that a case requires (``tree``, ``floor``)
and with the rate at which the same machine multiplies matrices in the same minute (``gemm``).
"""
