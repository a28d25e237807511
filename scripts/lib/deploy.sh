# shellcheck shell=bash
# The one library behind scripts/riva-*.sh:   . "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
#
#   say.sh     lines for people, exit statuses, waiting
#   flags.sh   flags and --help
#   aws.sh     asking and telling AWS; finding things by tag
#   remote.sh  running scripts/far/*.sh on the machine
if ((BASH_VERSINFO[0] < 5)); then # macOS has 3.2 of its own; what follows would fail there in riddles
    printf '%s: this needs bash 5, and runs in bash %s\n' "${0##*/}" "$BASH_VERSION" >&2
    printf '  macOS: brew install bash, then run this in a new terminal. Linux: a distribution of 2019 or later has it.\n' >&2
    exit 2
fi
set -euo pipefail
shopt -s inherit_errexit # what fails inside of $(…) ends it, too

# Half of the world writes 1,5, and awk does so, too, where the locale says so. AWS, jq and the tables write 1.5.
if [ -n "${LC_ALL:-}" ]; then
    export LANG=$LC_ALL
    unset LC_ALL
fi
export LC_NUMERIC=C

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$LIB/say.sh"
. "$LIB/flags.sh"
. "$LIB/aws.sh"
. "$LIB/remote.sh"

# A folder that nobody else reads, gone when the script ends.
SCRATCH=$(mktemp -d)
trap '_end $?' EXIT

# The `aws` command has statuses of its own, which differ between its versions; the callers of a script know only ours.
_end() {
    rm -rf "$SCRATCH"
    case $1 in
    253) fail "$EXIT_USAGE" "AWS was not asked: see above" "Log in (aws configure, aws sso login), or name a region." ;;
    252 | 254 | 255) fail "$EXIT_FAILED" "AWS refused: see above" "What was done before is kept: run this again when that is put right." ;;
    esac
}

# needs PROGRAM…: the script ends in words where one is not installed
needs() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null ||
            fail "$EXIT_USAGE" "'$name' is not installed" "Install it and run this again (Debian, Ubuntu: apt-get install $name)."
    done
}

# needs_gnu_tar: the script ends in words where the archive of the gateway cannot be made
needs_gnu_tar() {
    needs tar gzip
    [[ $(tar --version 2>/dev/null) == *GNU* ]] ||
        fail "$EXIT_USAGE" "'tar' is not GNU tar" "macOS: brew install gnu-tar, then PATH=\$(brew --prefix)/opt/gnu-tar/libexec/gnubin:\$PATH"
}

# needs_buildx: the script ends in words where docker cannot build
needs_buildx() {
    docker buildx version >/dev/null 2>&1 ||
        fail "$EXIT_USAGE" "docker has no 'buildx', which builds the image" "Install the plugin docker-buildx-plugin (Docker's packages) or docker-buildx (Ubuntu's)."
}

# plausible_key: $key can be one of NVIDIA's
plausible_key() { [[ $key =~ ^nvapi-[A-Za-z0-9_-]{20,200}$ || $key =~ ^[A-Za-z0-9]{40,200}$ ]]; }
