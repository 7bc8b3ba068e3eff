# Sourced by scripts/kernel: User Mode Linux as a guest (Debian package user-mode-linux).
#
# Debian's newest one needs a third of the CPU time of Debian 12's (docs of kernel.d, decisions), so it is what runs by default. It is
# unpacked into the cache with the C library that it wants, and started in that folder as its root:
#   CACHE/uml-VERSION/       usr/bin/linux.uml, usr/lib/uml/modules/RELEASE, libc6; host, proc, dev are where the machine's are mounted
#   CACHE/uml-series-7.2     symbolic link to the folder in use; uml-series-newest likewise; remove it to get the newest one again
#   CACHE/uml-failed-SERIES  it could not be had: not tried again for a day
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

readonly installed_uml_series=6.1

# The folder that the kernel is started in, empty for the installed one; where its modules are, as the guest sees it.
uml_root='' uml_modules=/usr/lib/uml/modules

uml_is_installed() { command -v linux.uml >/dev/null && [[ -d /usr/lib/uml/modules ]]; }

# The newest version of a series that there is, such as 7.2um1.
uml_version() {  # SERIES or newest
    private_apt apt-cache madison user-mode-linux | awk '{ print $3 }' | sort -Vr | awk -v series="$1" \
        'series == "newest" || (index($1, series) == 1 && substr($1, length(series) + 1) !~ /^[0-9]/) { print; exit }'
}

fetch_uml() {  # SERIES or newest; call it in a subshell, it exits when it fails
    local series=$1 version stage deb
    note "fetching Debian's User Mode Linux, $series (once; it stays in $cache)"
    apt=$cache/apt-uml debian_suites=(trixie forky) debian_security_suites=()
    update_private_apt
    version=$(uml_version "$series")
    [[ -n $version ]] || fail "Debian has no User Mode Linux $series in ${debian_suites[*]}"
    if [[ ! -e $cache/uml-$version ]]; then
        stage=$cache/uml-stage
        rm -rf "$stage"
        mkdir -p "$stage/debs" "$stage/root/"{host,proc,dev}
        (cd "$stage/debs" && private_apt apt-get -qq download "user-mode-linux=$version" libc6) >"$apt/download.log" 2>&1 ||
            fail "could not download user-mode-linux $version: $(tail -n 3 "$apt/download.log")"
        for deb in "$stage"/debs/*.deb; do
            dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$stage/root" --exclude=./usr/share
        done
        # Packages of a system with one /usr leave the loader there; the kernel's program asks for /lib64.
        [[ -e $stage/root/lib64 ]] || ln -s usr/lib64 "$stage/root/lib64"
        [[ -e $stage/root/lib ]] || ln -s usr/lib "$stage/root/lib"
        mv "$stage/root" "$cache/uml-$version"
        rm -rf "$stage"
    fi
    ln -sfn "uml-$version" "$cache/uml-series-$series"
}

# Sets uml_root, when the series can be had. One at a time: others wait for the one that downloads.
provide_uml() {  # SERIES or newest
    local lock failed=$cache/uml-failed-$1 status=0
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock "$lock"
    if [[ ! -e $cache/uml-series-$1 && -z $(find "$failed" -mtime -1 2>/dev/null) ]]; then
        (fetch_uml "$1") || { status=$?; : >"$failed"; }
    fi
    flock --unlock "$lock"
    exec {lock}<&-
    ((status == 0)) && [[ -e $cache/uml-series-$1 ]] || return 1
    uml_root=$(readlink -f "$cache/uml-series-$1")
    uml_modules=$uml_root/usr/lib/uml/modules
}

uml_prepare() {
    [[ ${version:-newest} != "$installed_uml_series" ]] && provide_uml "${version:-newest}" && return
    [[ -z $version || $version == "$installed_uml_series" ]] || fail "there is no User Mode Linux $version (reason above)"
    uml_is_installed || fail "User Mode Linux is not installed: apt-get install user-mode-linux"
    detail "User Mode Linux of this machine's own release"
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
        memory=$1 folder=$2 root=$3 enter=() files=/; shift 3
        mount -n -t tmpfs -o "size=$((memory + 64))m,mode=700" tmpfs "$folder" || exit
        if [[ -n $root ]]; then
            files=/host enter=(chroot "$root")
            mount -n --rbind / "$root/host" && mount -n --rbind /proc "$root/proc" && mount -n --rbind /dev "$root/dev" || exit
            folder=/host$folder
        fi
        export TMPDIR=$folder
        exec "${enter[@]}" /usr/bin/linux.uml "mem=${memory}M" uml_dir="$folder/" rootflags="$files" "$@"' - \
        "$memory" "$run/memory" "$uml_root" root=/dev/root rootfstype=hostfs rw init="$run/init" \
        con=null con0=null,fd:1 ssl=null ssl0=null,fd:"$1" ssl1=null,fd:"$2" \
        random.trust_cpu=on quiet panic=-1 cryptomgr.notests=1
}
