#include "xfrm/netlink/probe.h"

#include <cerrno>

#include <fmt/format.h>

#include "base/random.h"
#include "xfrm/algorithms.h"
#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/refusal.h"

namespace gmgate::xfrm {
namespace {

// Should the process die between adding and deleting.
constexpr std::chrono::seconds kDummyLifetime{30};

bool took_everything(const SaReport& told, const SetRequest& wanted) {
    return told.mark == wanted.mark && told.algorithms == wanted.parameters.algorithms &&
           told.hard_lifetime == wanted.lifetime;
}

}  // namespace

SetRequest probe_request(AlgorithmPair pair, Family family) {
    const auto random_spi = [] { return Spi{0x10000000 + static_cast<std::uint32_t>(random_u64() % 0xb0000000)}; };
    SetRequest request{};
    auto& p = request.parameters;
    p.ue = *Address::parse(family == Family::v4 ? "192.0.2.1" : "2001:db8::1");
    p.gateway = *Address::parse(family == Family::v4 ? "192.0.2.2" : "2001:db8::2");
    p.port_uc = p.port_us = p.port_pc = p.port_ps = Port{1};
    p.spi_uc = p.spi_us = p.spi_pc = p.spi_ps = random_spi();
    p.algorithms = pair;
    Key128 ck, ik;
    random_bytes(ck.expose_for_writing(16));
    random_bytes(ik.expose_for_writing(16));
    if (auto keys = derive_esp_keys(pair, ck, ik)) request.keys = std::move(*keys);
    request.mark = Mark{1};
    request.lifetime = kDummyLifetime;
    return request;
}

std::string probe_feature(AlgorithmPair pair, Family family) {
    return fmt::format("{} with {}, {}", to_string(pair.alg), to_string(pair.ealg),
                       family == Family::v4 ? "IPv4" : "IPv6");
}

std::string probe_modules(AlgorithmPair pair, Family family, int code) {
    if (code == EPROTONOSUPPORT) return family == Family::v4 ? "esp4" : "esp6";
    const auto* names = find_algorithms(pair);
    return names ? std::string(names->modules) : std::string();
}

Task<Result<std::vector<ProbeFinding>>> NetlinkKernel::probe(std::vector<AlgorithmPair> allowed) {
    std::vector<ProbeFinding> findings;
    for (const Family family : {Family::v4, Family::v6}) {
        for (const auto pair : allowed) {
            auto finding = co_await probe_one(pair, family);
            if (!finding) co_return std::unexpected(finding.error());
            findings.push_back(std::move(*finding));
        }
    }
    co_return findings;
}

Task<Result<ProbeFinding>> NetlinkKernel::probe_one(AlgorithmPair pair, Family family) {
    ProbeFinding finding{.feature = probe_feature(pair, family), .present = false, .reason = {}, .module = {}};
    auto request = probe_request(pair, family);
    request.mark =
        Mark{settings_.owner.mark_mask & (~settings_.owner.mark_mask + 1)};  // the lowest bit that we may set
    const auto sa = four_sas(request.parameters)[0];
    auto messages = buffer(1);
    const NewSa new_sa{sa, pair, request.keys, request.mark, request.lifetime};
    if (!append_new_sa(messages, new_sa, settings_.owner))
        co_return failure(Reaction::internal, "no such algorithm pair to probe");
    const auto added = co_await queue_->exchange(std::move(messages), NetlinkQueue::Place::back);
    if (!added) {
        // No socket at all is an answer too: the kernel has no XFRM, or we have no right to it.
        if (added.error().code != EPROTONOSUPPORT) co_return std::unexpected(added.error());
        finding.reason = added.error().text;
        finding.module = "xfrm_user";
        co_return finding;
    }
    if (const auto& outcome = added->outcomes[0]; outcome.code != 0) {
        if (outcome.code == EPERM) co_return refusal(outcome, "a dummy SA (CAP_NET_ADMIN is needed)");
        finding.reason = refusal(outcome, "a dummy SA").error().text;
        finding.module = probe_modules(pair, family, outcome.code);
        co_return finding;
    }
    auto check = buffer(2);
    static_cast<void>(append_get_sa(check, sa.id));
    static_cast<void>(append_delete_sa(check, sa.id));
    const auto told = co_await queue_->exchange(std::move(check), NetlinkQueue::Place::front);
    if (!told) co_return std::unexpected(told.error());
    finding.present = told->outcomes[0].sa && took_everything(told->outcomes[0].sa->report, request);
    if (!finding.present) finding.reason = "the kernel took the SA but not its mark or lifetime: it is older than 4.19";
    co_return finding;
}

}  // namespace gmgate::xfrm
