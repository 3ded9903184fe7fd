# Installing Debian packages from a script, or saying what is missing. To be sourced; the script sets `script` to its name
# for messages. Not what any of the scripts needs: each names its own packages.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "$script" "$*" >&2; exit 1; }
# The same where it may go another time: what cannot be downloaded now. 75 is EX_TEMPFAIL; tests/run knows it.
die_for_now() { printf '%s: %s\n' "$script" "$*" >&2; exit 75; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"
    else return 1
    fi
}

# apt_install WHY PACKAGE...: installs Debian packages, or says what to do.
apt_install() {
    local why=$1; shift
    say "installing $*"
    command -v apt-get >/dev/null || die "$why and there is no apt-get: install $* and try again"
    as_root true || die "$why: run 'apt-get install $*' as root and try again"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update \
        && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" \
        || die_for_now "$why, and apt-get did not install $* (see above): try again later"
}

# need_libclang: what makes the camera's bindings; it is no command, and lies in a folder of its version.
need_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null \
        || apt_install "libclang is missing" libclang-dev
}

# need COMMAND PACKAGE...: installs the packages unless the command is there.
need() {
    local command=$1; shift
    command -v "$command" >/dev/null || [ -x "/usr/sbin/$command" ] || apt_install "'$command' is missing" "$@"
}
