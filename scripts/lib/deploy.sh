# shellcheck shell=bash
# The one library behind scripts/riva-*.sh:   . "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
#
#   say.sh     lines for people, exit statuses, waiting
#   flags.sh   flags and --help
#   aws.sh     asking and telling AWS; finding things by tag
#   remote.sh  running scripts/far/*.sh on the machine
set -euo pipefail

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for _part in say flags aws remote; do
    # shellcheck disable=SC1090
    . "$LIB/$_part.sh"
done
unset _part

# A folder that nobody else reads, gone when the script ends.
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT

# needs PROGRAM…: the script ends in words where one is not installed
needs() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null ||
            fail "$EXIT_USAGE" "'$name' is not installed" "Install it and run this again (Debian, Ubuntu: apt-get install $name)."
    done
}
