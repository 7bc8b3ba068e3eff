#include "base/confine.h"

#include <cerrno>
#include <memory>
#include <string>

#include <cap-ng.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

namespace gmgate {
namespace {

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

Result<void> add_rule(const Filter& filter, std::uint32_t action, const SystemCall& call) {
    const int number = seccomp_syscall_resolve_name(call.name);
    if (number == __NR_SCMP_ERROR)
        return failure(Reaction::internal, std::string("seccomp does not know the system call ") + call.name);
    int status = 0;
    if (call.argument >= 0) {
        const scmp_arg_cmp same{
            .arg = static_cast<unsigned>(call.argument), .op = SCMP_CMP_EQ, .datum_a = call.value, .datum_b = 0};
        status = seccomp_rule_add_array(filter.get(), action, number, 1, &same);
    } else {
        status = seccomp_rule_add_array(filter.get(), action, number, 0, nullptr);
    }
    if (status != 0)
        return system_failure(Reaction::internal, std::string("seccomp does not take a rule for ") + call.name,
                              -status);
    return {};
}

Result<void> load(const Filter& filter) {
    // Refusals are logged, too: what is refused is either an attack or a mistake of the list, and both must be seen.
    if (const int status = seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_LOG, 1); status != 0)
        return system_failure(Reaction::refused, "seccomp cannot log", -status);
    if (const int status = seccomp_load(filter.get()); status != 0)
        return system_failure(Reaction::refused, "the kernel does not take the filter of system calls (seccomp)",
                              -status);
    return {};
}

}  // namespace

bool is_sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

Result<void> keep_capabilities(const Keep& keep) {
    capng_get_caps_process();
    for (const int capability : keep.capabilities)
        if (!capng_have_capability(CAPNG_PERMITTED, static_cast<unsigned>(capability)))
            return system_failure(Reaction::refused,
                                  std::string("the capability ") +
                                      capng_capability_to_name(static_cast<unsigned>(capability)) +
                                      " is missing: start as root or with that capability",
                                  EPERM);
    const bool may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
    capng_clear(may_bound ? CAPNG_SELECT_ALL : static_cast<capng_select_t>(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT));
    for (const int capability : keep.capabilities) {
        auto types = static_cast<unsigned>(CAPNG_PERMITTED);
        if (keep.is_effective) types |= CAPNG_EFFECTIVE;
        if (keep.is_inherited) types |= CAPNG_INHERITABLE | CAPNG_AMBIENT;
        if (may_bound) types |= CAPNG_BOUNDING_SET;
        capng_update(CAPNG_ADD, static_cast<capng_type_t>(types), static_cast<unsigned>(capability));
    }
    const int status = capng_apply(may_bound ? CAPNG_SELECT_ALL
                                             : static_cast<capng_select_t>(CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT));
    if (status != 0)
        return system_failure(Reaction::refused, "capabilities cannot be given up (" + std::to_string(status) + ")",
                              errno);
    return {};
}

Result<void> no_new_privileges() {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_failure(Reaction::refused, "no_new_privs", errno);
    return {};
}

void hide_memory() {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (!is_sanitized()) prctl(PR_SET_DUMPABLE, 0);
}

Result<void> allow_system_calls(std::span<const std::span<const SystemCall>> groups, Otherwise otherwise) {
    if (is_sanitized()) return {};
    const Filter filter(seccomp_init(otherwise == Otherwise::kill ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM)),
                        &seccomp_release);
    if (!filter) return failure(Reaction::internal, "seccomp: no filter");
    for (const auto group : groups)
        for (const auto& call : group)
            if (auto ok = add_rule(filter, SCMP_ACT_ALLOW, call); !ok) return ok;
    return load(filter);
}

Result<void> forbid_system_calls(std::span<const SystemCall> calls) {
    if (is_sanitized()) return {};
    const Filter filter(seccomp_init(SCMP_ACT_ALLOW), &seccomp_release);
    if (!filter) return failure(Reaction::internal, "seccomp: no filter");
    for (const auto& call : calls)
        if (auto ok = add_rule(filter, SCMP_ACT_ERRNO(EPERM), call); !ok) return ok;
    return load(filter);
}

}  // namespace gmgate
