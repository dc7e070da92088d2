"""The sweep for AVX-512. See sweep_avx512.pyx."""

NAME: bytes
kernel: object
