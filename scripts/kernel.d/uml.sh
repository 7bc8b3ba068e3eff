# Sourced by scripts/kernel: User Mode Linux as a guest (Debian package user-mode-linux).
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

readonly uml_modules=/usr/lib/uml/modules

uml_is_available() { command -v linux.uml >/dev/null && [[ -d $uml_modules ]]; }

uml_prepare() {
    uml_is_available || fail "User Mode Linux is not installed: apt-get install user-mode-linux"
}

uml_start() {  # OUT ERR: descriptors for the command's output
    local -a releases=("$uml_modules"/*)
    printf '%s\n' "${releases[0]}" >"$run/modules"
    printf '/dev/ttyS0\n/dev/ttyS1\n' >"$run/ports"
    detail "starting User Mode Linux ${releases[0]##*/}"
    # The guest's memory is a file that wants a tmpfs; the host's may be too small (64 MB in many containers), so it
    # gets its own. Serial lines carry the output; the consoles go nowhere except the first, which goes to the log.
    # shellcheck disable=SC2016  # expanded by the inner shell
    launch bash -c '
        memory=$1 folder=$2; shift 2
        mount -n -t tmpfs -o "size=$((memory + 64))m,mode=700" tmpfs "$folder" || exit
        export TMPDIR=$folder
        exec linux.uml "mem=${memory}M" "$@"' - "$memory" "$run/memory" \
        uml_dir="$run/memory/" root=/dev/root rootfstype=hostfs rootflags=/ rw init="$run/init" \
        con=null con0=null,fd:1 ssl=null ssl0=null,fd:"$1" ssl1=null,fd:"$2" \
        random.trust_cpu=on quiet panic=-1 cryptomgr.notests=1
}
