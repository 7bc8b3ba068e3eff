#include "forker.h"

#include "../common/text.h"

#include <algorithm>

namespace gmgate::peers {

void Forker::start(const SipMessage& invite, std::vector<Branch> branches) {
    const auto now = Clock::now();
    std::erase_if(by_branch_, [&](const auto& entry) { return forks_.at(entry.second.first).forgotten < now; });
    std::erase_if(forks_, [&](const auto& entry) { return entry.second.forgotten < now; });
    const auto [at, is_new] = forks_.try_emplace(key_of(invite));
    if (is_new) {
        at->second.forgotten = now + std::chrono::minutes(10);
        at->second.branches = std::move(branches);
        for (std::size_t i = 0; i < at->second.branches.size(); ++i)
            by_branch_[at->second.branches[i].request.branch()] = {at->first, i};
    }
    for (const Branch& branch : at->second.branches)
        if (branch.final == 0) link_.send(branch.request, branch.tcp, branch.to);
}

// RFC 3261 §9.1, §17.1.1.3: the Request-URI, the top Via, Route, From, Call-ID and number of the INVITE; the To of the
// response in an ACK.
void Forker::send_in(const Branch& branch, std::string method, const SipMessage* response) {
    SipMessage request = SipMessage::request(method, branch.request.uri());
    request.add("Via", branch.request.list("Via").front());
    for (const auto& route : branch.request.list("Route")) request.add("Route", route);
    request.add("Max-Forwards", "70");
    for (const char* name : {"From", "To", "Call-ID"}) request.add(name, branch.request.get(name));
    if (response != nullptr) request.set("To", response->get("To"));
    request.add("CSeq", std::to_string(branch.request.cseq()) + ' ' + method);
    link_.send(request, branch.tcp, branch.to);
}

void Forker::cancel_open(Fork& fork) {
    for (const Branch& branch : fork.branches)
        if (branch.final == 0) send_in(branch, "CANCEL", nullptr);
}

bool Forker::take_request(const SipMessage& request, const Origin& origin) {
    const bool is_cancel = request.is("CANCEL");
    if (!is_cancel && !request.is("ACK")) return false;
    const auto at = forks_.find(key_of(request));
    if (at == forks_.end()) return false;
    if (is_cancel) {
        link_.respond(SipMessage::response_to(request, 200, "", "fork"), origin);
        cancel_open(at->second);
    }
    return true;
}

std::optional<SipMessage> Forker::take_response(SipMessage response) {
    const auto known = by_branch_.find(response.branch());
    if (known == by_branch_.end() || response.method() != "INVITE") return response;
    Fork& fork = forks_.at(known->second.first);
    Branch& branch = fork.branches[known->second.second];
    if (response.status() < 200) return fork.answered ? std::nullopt : std::optional(std::move(response));
    const bool is_first = std::exchange(branch.final, response.status()) == 0;
    if (response.status() < 300) {
        if (!std::exchange(fork.answered, true)) cancel_open(fork);
        return response;
    }
    send_in(branch, "ACK", &response);
    if (!is_first) return std::nullopt;
    // §16.7 step 6: a 6xx before all others, then the lowest class.
    const auto rank = [](const SipMessage& r) { return r.status() >= 600 ? 0 : r.status(); };
    if (!fork.best || rank(response) < rank(*fork.best)) fork.best = std::move(response);
    const bool all_done = std::ranges::all_of(fork.branches, [](const Branch& b) { return b.final != 0; });
    if (fork.answered || !all_done) return std::nullopt;
    return fork.best;
}

}  // namespace gmgate::peers
