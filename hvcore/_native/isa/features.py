"""Names that the attribute column of `x64.txt` may use: CPUID features, and words about an instruction."""
from __future__ import annotations

FEATURES = frozenset("""
ace_1 adx aes aeskle amx_avx512 amx_bf16 amx_complex amx_fp16 amx_fp8 amx_int8 amx_movrs amx_tf32 amx_tile amx_transpose
apx_f apx_nci_ndd_nf avx avx10_1 avx10_2 avx10_v2_aux avx2 avx512_4fmaps avx512_4vnniw avx512_bf16 avx512_bitalg
avx512_bmm avx512_fp16 avx512_ifma
avx512_vbmi avx512_vbmi2 avx512_vnni avx512_vp2intersect avx512_vpopcntdq avx512bw avx512cd avx512dq avx512er
avx512f avx512pf avx512vl avx_ifma avx_ne_convert avx_vnni avx_vnni_int16 avx_vnni_int8 bmi1 bmi2 centaur_ais
cet_ibt cet_ss cl1invmb cldemote clflushopt clfsh clwb clzero cmov cmpccxadd cmpxchg16b cpuid cx16 cx8
cyrix_d3now cyrix_ddi cyrix_dmi cyrix_emmi cyrix_fpu cyrix_shr cyrix_smint cyrix_smint_0f7e cyrix_smm d3now
d3nowext enqcmd f16c fma fma4 fpu fpu287 fpu287xl_only fpu387 fpu387sl_only fred fsgsbase fxsr gfni hle hle_or_rtm
hreset ia64 intel186 intel286 intel286_only intel386 intel386_a0_only intel386_only intel486 intel486_a_only
intel8086 intel8086_only invept invlpgb invpcid invvpid kl knc lkgs lwp lzcnt mcommit mmx monitor monitorx mov_tr
movbe movdir64b movdiri movrs mpx msr msr_imm msrlist multibytenop oss padlock_ace padlock_gmi padlock_phe
padlock_pmm padlock_rng padlock_undoc pause pclmulqdq pcommit pconfig pku popcnt prefetchiti prefetchw prefetchwt1
ptwrite rao_int rdpid rdpmc rdpru rdrand rdseed rdtscp rmpquery rtm sep serialize sev_es sev_snp sgx1 sha sha512
skinit skinit_or_svm sm3 sm4 smap smm smx sse sse2 sse3 sse4_1 sse4_2 sse4a ssse3 svm syscall tbm tdx tsc tse
tsxldtrk udb udbg uintr umov user_msr vaes vmx vpclmulqdq waitpkg wbnoinvd wide_kl wrmsrns x64 xop xsave xsavec
xsaveopt xsaves
""".split())

WORDS = frozenset("""
lock xacquire xrelease rep repne bnd hint notrack no66 norep norex2 nosegment norounding wig32 amd16 amd32 amd_lock
only64 not64 intel amd cpl0 d64 f64 aligned distinct distinct_target tuple1 norsp pair norexr load io push pop ends
""".split())
COUNTED = frozenset(("push", "pop"))
"""Words that may have a number: push=2."""
IMPLICIT = ("in", "out", "inout", "cin", "cout", "cinout", "mem")

FLOWS = ("next", "jump", "jump_indirect", "branch", "call", "call_indirect", "return", "interrupt", "exception",
         "transaction")
FLAG_BITS = {"c": 0, "p": 2, "a": 4, "z": 6, "s": 7, "i": 9, "d": 10, "o": 11, "k": 18, "e": 24, "f": 25, "g": 26,
             "h": 27, "u": 28}
"""RFLAGS bits; C0 to C3 of the x87 (e f g h) and UIF (u) have bits above them."""
FLAG_EFFECTS = "rwu01"
CONDITION_FLAGS = ("o", "c", "z", "cz", "s", "p", "so", "zso")
"""What the conditions read, by the condition's number halved."""
