# Sourced by scripts/kernel: QEMU as a guest, with Debian's kernels.
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

kernel_folder='' kernel_release='' acceleration=() cpu_model=max

qemu_is_available() { command -v qemu-system-x86_64 >/dev/null; }

qemu_prepare() {
    local tool
    for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static modprobe:kmod cpio:cpio xz:xz-utils \
        dpkg-deb:dpkg flock:util-linux; do
        command -v "${tool%:*}" >/dev/null || fail "${tool%:*} is not installed: apt-get install ${tool#*:}"
    done
    provide_kernel "${version:-6.1}"
    acceleration=(-accel "tcg,thread=multi")
    if [[ -n ${GMGATE_ICOUNT:-} ]]; then
        # One CPU whose clock counts instructions, so that times do not depend on the load of the machine. Without erms and
        # fsrm the kernel copies by moves, which are counted; "rep movsb" would be one instruction whatever its length.
        acceleration=(-accel "tcg,thread=single" -icount "$GMGATE_ICOUNT")
        cpu_model=max,-erms,-fsrm
        cpus=1
    elif kvm_works; then
        acceleration=(-accel kvm)
    fi
}

qemu() {  # APPEND [OPTION…]
    local append=$1; shift
    printf '%s\0' qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -nic none -cpu "$cpu_model" \
        -kernel "$kernel_folder/vmlinuz" -initrd "$kernel_folder/initramfs" \
        -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests=1 $append" "$@"
}

# /dev/kvm may open and still run no guest, so a guest is booted, under a time limit, once per boot of the host.
kvm_works() {
    [[ -w /dev/kvm ]] || return 1
    local known boot
    boot=$(</proc/sys/kernel/random/boot_id)
    known=$cache/kvm-$boot
    if [[ ! -e $known ]]; then
        local -a command
        mapfile -d '' -t command < <(qemu gmgate.try -accel kvm -m 256 -serial stdio)
        rm -f "$cache"/kvm-*
        if timeout --kill-after=2 20 "${command[@]}" </dev/null 2>&1 | grep -q gmgate-guest-booted; then
            echo yes >"$known"
        else
            echo no >"$known"
        fi
    fi
    [[ $(<"$known") == yes ]]
}

qemu_start() {  # OUT ERR: descriptors for the command's output
    printf '%s\n' "$kernel_folder/lib/modules/$kernel_release" >"$run/modules"
    printf '/dev/vport*p1\n/dev/vport*p2\n' >"$run/ports"
    detail "starting QEMU (${acceleration[1]}) with Linux $kernel_release"
    local -a command
    mapfile -d '' -t command < <(qemu "gmgate.init=$run/init" "${acceleration[@]}" -m "$memory" -smp "$cpus" -serial stdio \
        -fsdev "local,id=host,path=/,security_model=passthrough,multidevs=remap" -device virtio-9p-pci,fsdev=host,mount_tag=host \
        -device virtio-rng-pci -device virtio-serial-pci \
        -chardev "file,id=out,path=/proc/self/fd/$1" -device virtserialport,chardev=out,nr=1 \
        -chardev "file,id=err,path=/proc/self/fd/$2" -device virtserialport,chardev=err,nr=2)
    launch "${command[@]}"
}
