"""Guest programs that run inside hvcore: the root guest and the benchmark workloads.

`root.elf` is committed machine code, so importing hvcore never needs an assembler; `build` makes it again from
`root.S`, and a test compares the bytes. `workloads` compiles the C programs, which does need a compiler.
"""
