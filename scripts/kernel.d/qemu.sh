# Sourced by scripts/kernel: QEMU as a guest, with Debian's kernels.
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

qemu_is_available() { return 1; }
qemu_prepare() { fail "QEMU: not written yet"; }
