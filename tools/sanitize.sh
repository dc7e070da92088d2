#!/usr/bin/env bash
# Build a copy of the tree with AddressSanitizer and run the tests on it: tools/sanitize.sh [pytest arguments].
# PYTHON names an interpreter that has what the tests need (default: .venv/bin/python, else python3);
# SANITIZE_DIRECTORY keeps the copy for the next time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
place=${SANITIZE_DIRECTORY:-$(mktemp -d)}
[ -n "${SANITIZE_DIRECTORY:-}" ] || trap 'rm -rf "$place"' EXIT

library=$("${CC:-gcc}" -print-file-name=libasan.so)
[ -e "$library" ] || { echo "no libasan.so for ${CC:-gcc}" >&2; exit 1; }

echo "copy to $place"
mkdir -p "$place"
(cd "$root" && git ls-files --cached --others --exclude-standard -z | tar --null --ignore-failed-read -T - -c) |
    tar -x -C "$place"
cd "$place"

echo "build"
HVCORE_SANITIZE=1 "$python" setup.py -q build_ext --inplace

# PYTHONPATH goes before an editable install's path entry, so the copy is what is tested. Wheels, stubs and style are
# no matter of memory; the machine code is the sanitizer's own.
echo "test"
export PYTHONPATH=$place PYTHONMALLOC=malloc LD_PRELOAD=$library ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
"$python" -c 'import hvcore, os; assert hvcore.__file__.startswith(os.getcwd()), hvcore.__file__'
"$python" -m pytest -p no:cacheprovider --ignore tests/package --ignore tests/house "$@"
