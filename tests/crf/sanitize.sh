#!/usr/bin/env bash
# The native CRF's tests under AddressSanitizer and UBSan:
#   tests/crf/sanitize.sh [path/to/python]
# in the repository, with GCC and an interpreter that has the package's dependencies.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(realpath -s "${1:-.venv/bin/python}")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r segment setup.py setup.cfg pyproject.toml README.md LICENSE tests "$copy"
cd "$copy"
rm -f segment/crf/_native*.so
CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
  LDFLAGS="-fsanitize=address,undefined" "$python" setup.py -q build_ext --inplace
# The interpreter itself leaks on purpose, and torch needs the C++ library before the sanitizers'.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$copy" OMP_NUM_THREADS=1 \
  "$python" -m pytest -q -p no:cacheprovider tests/crf/test_native.py
