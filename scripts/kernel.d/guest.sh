# Sourced by scripts/kernel: one run in a guest, whatever its kind. The guest's side of it is kernel.d/init.
# shellcheck shell=bash
# shellcheck disable=SC2154  # on, limit, command, verbose… are the options of scripts/kernel

run='' guest='' readers=()

# What CMD may know of the caller's environment, NUL-separated.
list_environment() {
    local entry name
    declare -A wanted=()
    for entry in "${extra_env[@]}"; do
        if [[ $entry == *=* ]]; then
            printf '%s\0' "$entry"
        else
            wanted[$entry]=1
        fi
    done
    while IFS= read -r -d '' entry; do
        name=${entry%%=*}
        case $name in
            PATH | HOME | LANG | LC_* | TERM | TZ | USER | LOGNAME | SHELL | GMGATE_* | CTEST_* | ?SAN_OPTIONS | ??SAN_OPTIONS)
                printf '%s\0' "$entry" ;;
            *) [[ -z ${wanted[$name]:-} ]] || printf '%s\0' "$entry" ;;
        esac
    done < <(env -0)
    # The last one wins, so these two cannot be overridden by accident.
    printf 'GMGATE_KERNEL=%s\0' "$on"
    [[ -n ${wanted[TMPDIR]:-} || " ${extra_env[*]} " == *' TMPDIR='* ]] || printf 'TMPDIR=/run/tmp\0'
}

# The folder shared with the guest. Always in /tmp: the guest has its own /run, /dev and /dev/shm.
make_run_folder() {
    run=$(mktemp -d /tmp/gmgate-kernel.XXXXXX)
    mkdir "$run/memory"
    mkfifo "$run/out" "$run/err"
    : >"$run/console"
    printf '%s' "$PWD" >"$run/cwd"
    printf '%s' "$limit" >"$run/limit"
    printf '%s\0' "${command[@]}" >"$run/args"
    list_environment >"$run/env"
    printf '#!/bin/sh\nexec %q %q\n' "$pieces/init" "$run" >"$run/init"
    chmod 755 "$run/init"
}

# Ends the guest and all its processes, and waits until they are gone: the guest is the first process of a process
# namespace, so nothing of it can outlive it.
end_guest() {
    [[ -n $guest ]] || return 0
    # Ending the namespace's first process makes its parent, which we can wait for, return only after all of it is gone.
    local first
    first=$(ps -o pid= --ppid "$guest" 2>/dev/null || true)
    kill -KILL "${first:-$guest}" 2>/dev/null || true
    wait "$guest" 2>/dev/null || true
    guest=''
}

clean_up() {
    # A child that is signalled between its fork and its exec still has our traps; cleaning is not its business.
    [[ $BASHPID == "$$" ]] || return 0
    trap '' INT TERM HUP
    end_guest
    local reader
    for reader in "${readers[@]}"; do
        kill "$reader" 2>/dev/null || true
    done
    [[ -z $run ]] || rm -rf "$run"
}

show_console() {
    note "last lines of its console:"
    { grep -a -m1 -A8 'Kernel panic' "$run/console" || tail -n 25 "$run/console"; } | tr -d '\r' | sed 's/^/  | /' >&2 || true
}

# Starts the guest's program in namespaces of its own: mounts made for it vanish with it, and so do its processes,
# even if this script is killed.
launch() {  # PROGRAM [ARG…]
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$@" \
        </dev/null >>"$run/console" 2>&1 &
    guest=$!
}

# Waits until the guest is gone. Wakes up at least every second to look at the clock. "wait -n" only shortens the nap:
# bash 5.2 has forgotten whatever ended before the last fork, so who is gone is asked of the kernel.
await_guest() {  # BOOT_LIMIT
    local boot_limit=$1 begin=$SECONDS started='' tick reader status
    while kill -0 "$guest" 2>/dev/null; do
        sleep 1 & tick=$!
        wait -n "$guest" "$tick" "${readers[@]}" 2>/dev/null || true
        kill "$tick" 2>/dev/null || true
        for reader in "${!readers[@]}"; do
            ! kill -0 "${readers[reader]}" 2>/dev/null || continue
            status=0
            wait "${readers[reader]}" || status=$?
            unset "readers[$reader]"
            # Nobody reads the output any more (as in "| head"): no point in going on.
            ((status == 0)) || { end_guest; exit "$status"; }
        done
        if [[ -z $started && -L $run/started ]]; then
            started=$SECONDS
            detail "guest up after $((SECONDS - begin)) s"
        fi
        # User Mode Linux does not go away by itself then.
        if grep -q 'Kernel panic - not syncing' "$run/console"; then
            note "the guest's kernel panicked"
            return
        fi
        if [[ -z $started ]] && ((SECONDS - begin > boot_limit)); then
            note "the guest did not come up within $boot_limit s"
            return
        fi
        # The guest keeps the limit itself, so that files are written back; this is for one that no longer can.
        if [[ -n $started ]] && ((limit > 0 && SECONDS - started > limit + 30)); then
            note "the guest did not end its command at the time limit, so it was ended itself; file contents may be lost"
            [[ -L $run/status ]] || ln -s timeout "$run/status"
            return
        fi
    done
}

run_in_guest() {  # START_FUNCTION BOOT_LIMIT
    [[ $EUID == 0 ]] || fail "starting a guest over the host's files needs root: call it with sudo"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    make_run_folder
    # These read-write descriptors let the readers start without waiting for the guest to open the other end.
    local out err
    exec {out}<>"$run/out" {err}<>"$run/err"
    cat "$run/out" {out}<&- {err}<&- & readers+=($!)
    cat "$run/err" >&2 {out}<&- {err}<&- & readers+=($!)
    "$1" "$out" "$err"
    exec {out}<&- {err}<&-
    await_guest "$2"
    end_guest
    wait "${readers[@]}" || true
    readers=()

    local status
    if [[ -L $run/status ]]; then
        status=$(readlink "$run/status")
        if [[ $status == timeout ]]; then
            note "time limit of $limit s reached; the command was ended"
            status=124
        fi
    elif [[ -L $run/missing ]]; then
        note "the $on kernel lacks what gmgate needs:"
        grep '^MISSING' "$run/probe" >&2 || true
        status=126
    else
        note "the $on guest $([[ -L $run/started ]] && echo died || echo 'did not start')"
        show_console
        status=125
    fi
    exit "$status"
}
