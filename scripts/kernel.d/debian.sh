# Sourced by scripts/kernel: Debian's kernels, downloaded and unpacked into a cache instead of being installed.
#
#   CACHE/apt/, apt-uml/     configuration and state of an apt of our own; the host's is only read
#   CACHE/RELEASE/           vmlinuz, lib/modules/RELEASE, initramfs
#   CACHE/series-6.1         symbolic link to the RELEASE in use; remove it to get the newest one again
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

readonly cache=${GMGATE_KERNEL_CACHE:-/var/cache/gmgate/kernels}
# Where kernels come from; uml.sh has suites and an apt folder of its own.
apt=$cache/apt
debian_suites=(bookworm bookworm-updates bookworm-backports trixie trixie-updates trixie-backports)
debian_security_suites=(bookworm-security trixie-security)

private_apt() {  # PROGRAM [ARG…]
    local program=$1; shift
    "$program" -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferencesparts=- \
        -o Dir::Etc::preferences=- -o APT::Architecture=amd64 -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The mirror that the host uses for Debian (KIND: debian or debian-security), else Debian's own.
mirror_of_host() {  # KIND
    local uri
    # shellcheck disable=SC2016  # apt's own variable
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E -m1 "/$1/?$" || true)
    printf '%s' "${uri:-http://deb.debian.org/$1}"
}

update_private_apt() {
    local suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -e $keyring ]] || fail "$keyring is missing: apt-get install debian-archive-keyring"
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    {
        for suite in "${debian_suites[@]}"; do
            echo "deb [arch=amd64 signed-by=$keyring] $(mirror_of_host debian) $suite main"
        done
        for suite in "${debian_security_suites[@]}"; do
            echo "deb [arch=amd64 signed-by=$keyring] $(mirror_of_host debian-security) $suite main"
        done
    } >"$apt/sources.list"
    # A mirror may lack a suite; whether the wanted kernel is there is decided afterwards.
    private_apt apt-get -qq update >"$apt/update.log" 2>&1 ||
        note "apt-get update had errors, see $apt/update.log"
}

# Newest release of a series that there are packages for, such as 6.1.0-42-amd64 or 7.3.4+deb13-amd64.
newest_release() {  # SERIES
    sed -nE "s/^linux-(image|binary)-(unsigned-)?(${1//./\\.}\.[0-9.]+([+~-][a-z0-9.+~]+)?-amd64)(-unsigned)?\$/\3/p" "$apt/names" |
        sort -V | tail -n 1
}

# The packages with the image and the modules of a release. Newer ones are split (image, modules, their index), and their
# linux-image-RELEASE is empty; unsigned ones are all there is for a while after an upload.
packages_of() {  # RELEASE
    local name
    for name in "linux-binary-$1" "linux-binary-unsigned-$1" "linux-image-$1" "linux-image-$1-unsigned"; do
        grep -qxF "$name" "$apt/names" || continue
        echo "$name"
        [[ $name != linux-binary-* ]] || printf '%s\n' "linux-modules-$1" "linux-base-$1"
        return
    done
}

unpack() {  # DEB FOLDER, without drivers for hardware that no guest has, which are most of it
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards --no-wildcards-match-slash \
        --exclude='*/kernel/sound' --exclude='*/kernel/drivers/gpu' --exclude='*/kernel/drivers/media' \
        --exclude='*/kernel/drivers/net/ethernet' --exclude='*/kernel/drivers/net/wireless' \
        --exclude='*/kernel/drivers/infiniband' --exclude='*/kernel/drivers/staging' --exclude='*/kernel/drivers/scsi' \
        --exclude='*/kernel/drivers/iio' --exclude='*/kernel/drivers/usb' --exclude='*/kernel/drivers/hwmon' \
        --exclude='*/kernel/drivers/input' --exclude='*/kernel/drivers/mtd' --exclude='*/kernel/drivers/accel' \
        --exclude='./usr/share'
}

# An initramfs that mounts the host's files by 9p and goes on with the init given on the kernel's command line.
make_initramfs() {  # FOLDER RELEASE
    local folder=$1 release=$2 root file
    root=$folder/initramfs.d
    mkdir -p "$root"/{bin,proc,dev,host,modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
    local needed list=''
    for needed in virtio_pci virtio_console virtio_rng 9p 9pnet_virtio; do
        # The list comes in loading order; what is built into the kernel needs no file.
        list+=$(modprobe -d "$folder" -S "$release" --show-depends --ignore-install "$needed" 2>&1)$'\n' ||
            fail "Linux $release has no module $needed: $list"
    done
    sed -n 's/^insmod \([^ ]*\).*/\1/p' <<<"$list" | awk '!seen[$0]++' >"$root/files"
    while read -r file; do
        cp "$file" "$root/modules/"
        echo "${file##*/}" >>"$root/modules/order"
    done <"$root/files"
    rm "$root/files"
    cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do /bin/busybox insmod /modules/$module; done </modules/order
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in
        gmgate.init=*) init=${word#*=} ;;
        gmgate.try) echo gmgate-guest-booted; /bin/busybox poweroff -f ;;
    esac
done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,rw host /host || exit 1
/bin/busybox umount /proc
exec /bin/busybox switch_root /host "$init"
END
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$folder/initramfs"
    rm -r "$root"
}

fetch_kernel() {  # SERIES
    local series=$1 release stage deb image
    local -a packages
    note "fetching Debian's newest Linux $series (once; it stays in $cache)"
    update_private_apt
    { private_apt apt-cache pkgnames linux-image-; private_apt apt-cache pkgnames linux-binary-; } >"$apt/names"
    release=$(newest_release "$series")
    [[ -n $release ]] || fail "Debian has no Linux $series in ${debian_suites[*]} ${debian_security_suites[*]}"
    if [[ ! -e $cache/$release/initramfs ]]; then
        stage=$cache/stage
        rm -rf "$stage"
        mkdir -p "$stage/debs" "$stage/tree"
        mapfile -t packages < <(packages_of "$release")
        (cd "$stage/debs" && private_apt apt-get -qq download "${packages[@]}") >"$apt/download.log" 2>&1 ||
            fail "could not download ${packages[*]}: $(tail -n 3 "$apt/download.log")"
        for deb in "$stage"/debs/*.deb; do
            unpack "$deb" "$stage/tree"
        done
        image=$(find "$stage/tree" -name 'vmlinuz*' -type f | head -n 1)
        [[ -n $image ]] || fail "no kernel image in ${packages[*]}"
        mv "$image" "$stage/vmlinuz"
        mkdir -p "$stage/lib"
        if [[ -d $stage/tree/lib/modules ]]; then
            mv "$stage/tree/lib/modules" "$stage/lib/"
        else
            mv "$stage/tree/usr/lib/modules" "$stage/lib/"
        fi
        rm -rf "$stage/tree" "$stage/debs"
        # Unpacking compressed modules at each boot would cost seconds in a guest without KVM.
        find "$stage/lib" -name '*.ko.xz' -print0 | xargs -0 -r xz -d
        depmod -b "$stage" "$release"
        make_initramfs "$stage" "$release"
        mv "$stage" "$cache/$release"
    fi
    ln -sfn "$release" "$cache/series-$series"
}

# Sets kernel_folder and kernel_release (of qemu.sh). One at a time: others wait for the one that downloads.
provide_kernel() {  # SERIES
    local lock
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock "$lock"
    [[ -e $cache/series-$1/initramfs ]] || fetch_kernel "$1"
    flock --unlock "$lock"
    exec {lock}<&-
    kernel_release=$(readlink "$cache/series-$1")
    # shellcheck disable=SC2034
    kernel_folder=$cache/$kernel_release
}
