#!/usr/bin/env bash
# Makes the locks of third_party/ from setup.cfg, and checks that each holds for every Python that setup.cfg allows: the same
# packages in the same versions, all with wheels. Needs uv (pip install uv) and a package index.
#
#   bash tools/locks.sh [--upgrade]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export UV_PYTHON_DOWNLOADS=never
upgrade=("$@")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# compile FILE PYTHON EXTRA …
compile() {
  local file=$1 python=$2 extras=()
  shift 2
  while [[ ${1-} != '' && $1 != --* ]]; do extras+=(--extra "$1") && shift; done
  uv pip compile setup.cfg "${extras[@]}" --generate-hashes --python-version "$python" --no-emit-index-url \
    --no-emit-find-links -o "$file" "$@" >/dev/null
}

# lock NAME EXTRA …
lock() {
  local file=third_party/$1.lock
  shift
  compile "$file" 3.11 "$@" ${upgrade[@]+"${upgrade[@]}"}
  for python in 3.11 3.12 3.13; do
    cp "$file" "$scratch/lock"
    compile "$scratch/lock" "$python" "$@" --only-binary :all: --no-binary promise
    diff <(grep -o '^[a-z0-9-]*==[^ ]*' "$file") <(grep -o '^[a-z0-9-]*==[^ ]*' "$scratch/lock") ||
      { echo "$file does not hold for Python $python" >&2 && exit 1; }
  done
}

lock requirements test dev pretrained
lock export test export
lock formats test formats
for extra in serve notebooks zoo; do
  cp third_party/requirements.lock "third_party/$extra.lock"  # For the same versions.
  lock "$extra" test "$extra"
done
