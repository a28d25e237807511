#!/usr/bin/env bash
# slim.sh ENVIRONMENT ASIDE: take out of a virtual environment what a running gateway never opens, and put the model of
# the embedded recognizer under ASIDE, at the same path. It runs in the image's build (Dockerfile).
set -euo pipefail

environment=$1
aside=$2
packages=$("$environment"/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# The compiler of protocol buffers, which the Riva client asks for and never calls; only it needs setuptools.
python3 -m pip --python "$environment"/bin/python --quiet uninstall --yes grpcio-tools setuptools

# Tests, headers, type stubs, sources of what is compiled.
find "$packages" -depth -type d \( -name tests -o -path "$packages/pygal/test" -o -path '*/numpy/*/include' \) \
    -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pxi' -o -name '*.[acho]' \
    -o -name '*.cpp' -o -name '*.hpp' \) -delete

# boto3 reads secrets: of the descriptions of some 400 services it needs that one and those that give credentials.
for service in "$packages"/botocore/data/*/; do
    case $(basename "$service") in
    secretsmanager | signin | sso | sso-oidc | sts) ;;
    *) rm -rf "$service" ;;
    esac
done
rm -rf "$packages"/boto3/data/*/ "$packages"/boto3/examples

mkdir -p "$aside$packages/pocketsphinx"
mv "$packages/pocketsphinx/model" "$aside$packages/pocketsphinx/model"

# Compiled once, here: a root file system that is read only could not keep it. By hash and unchecked, because a date
# would differ in every build.
"$environment"/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
