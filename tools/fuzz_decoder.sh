#!/usr/bin/env bash
# Coverage-guided fuzzing of the decoder: tools/fuzz_decoder.sh [libFuzzer arguments], as in
#   tools/fuzz_decoder.sh -max_total_time=600
# Needs clang with libFuzzer (CLANG names it) and, in the tree, the generated tables of a build. PYTHON names an
# interpreter with Cython; CORPUS is a directory that keeps what was found for the next time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
clang=${CLANG:-$(command -v clang || true)}
[ -n "$clang" ] || { echo "no clang; CLANG names it" >&2; exit 1; }
[ -e "$root/hvcore/_native/isa/generated/tables.h" ] || { echo "build hvcore first" >&2; exit 1; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
corpus=${CORPUS:-$place/corpus}
mkdir -p "$corpus"

paths() { "$python" -c "import sysconfig; print(sysconfig.get_$1)"; }
include=$(paths 'paths()["include"]') library=$(paths 'config_var("LIBDIR")') version=$(paths 'config_var("LDVERSION")')

cp "$root/tools/fuzz_decoder.pyx" "$place"
"$python" -m cython -3 -I "$root" -w "$root" -X boundscheck=False -X wraparound=False -X cdivision=True \
    "$place/fuzz_decoder.pyx" -o "$place/fuzz_decoder.c"
"$clang" -g -O1 -w -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -fno-strict-aliasing \
    -I"$include" -I"$root" -I"$root/hvcore/_native" "$place/fuzz_decoder.c" -o "$place/fuzz_decoder" \
    -L"$library" "-lpython$version" "-Wl,-rpath,$library"
ASAN_OPTIONS=detect_leaks=0 "$place/fuzz_decoder" -max_len=20 "$corpus" "$@"
