#!/usr/bin/env bash
# Build the images that the tests under tests/image run, on a base made of Debian's packages.
#
#   test-image.sh ready    what is missing: the base (once), and the images where what goes into them has changed
#   test-image.sh clean    remove containers, images and the base
#
# As root, for the base. A store of its own is used (RIVA_IMAGE_CACHE, else ~/.cache/riva-gateway-image); no other
# container of this machine is touched. The tests call `ready` themselves; beforehand it can run beside other work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case "${1:-}" in
ready | clean) ;;
*)
    echo "usage: $0 ready|clean" >&2
    exit 2
    ;;
esac
PYTHONPATH=tests exec .venv/bin/python -m image.workshop "$1"
