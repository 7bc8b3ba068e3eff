// The router between a phone with one set of SAs (the mark that the kernel would report is put on by the test) and a
// core, on real sockets of the loopback. No kernel SAs: who owns a flow is all that the router knows of them.
#pragma once

#include <memory>

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/spawn.h"
#include "daemon/proxy/router.h"
#include "daemon/rules/header_rules.h"
#include "tests/unit/daemon/proxy/support.h"
#include "tests/unit/sip/transport/net_support.h"

namespace gmgate::daemon::test {

using gmgate::sip::test::Loop;
using gmgate::sip::test::Peer;
using gmgate::sip::test::response_text;

/// A server transaction whose flow has the mark of an inbound SA.
class Marked : public sip::ServerTransaction {
public:
    Marked(std::shared_ptr<sip::ServerTransaction> inner, Mark mark) : inner_(std::move(inner)), flow_(inner_->flow()) {
        flow_.mark = mark;
    }
    const sip::Message& request() const override { return inner_->request(); }
    const sip::Flow& flow() const override { return flow_; }
    void set_reply_flow(const sip::Flow& flow) override { inner_->set_reply_flow(flow); }
    const sip::Flow& reply_flow() const override { return inner_->reply_flow(); }
    Result<void> respond(std::string response) override { return inner_->respond(std::move(response)); }
    bool is_completed() const override { return inner_->is_completed(); }
    std::string tag() const override { return inner_->tag(); }
    void forget() override { inner_->forget(); }
    void forget_when_crowded() override { inner_->forget_when_crowded(); }
    void on_cancel(std::function<void(std::string)> handler) override { inner_->on_cancel(std::move(handler)); }

private:
    std::shared_ptr<sip::ServerTransaction> inner_;
    sip::Flow flow_;
};

inline constexpr std::uint32_t kSet = 77;

struct ProxyNetwork {
    Loop loop;
    Peer ue_client = Peer::udp(loop, Family::v4), ue_server = Peer::udp(loop, Family::v4),
         core_peer = Peer::udp(loop, Family::v4);
    Endpoint ps = sip::test::free_endpoint(Family::v4), pc = sip::test::free_endpoint(Family::v4),
             core_side = sip::test::free_endpoint(Family::v4);
    Config config = make_config();
    sip::Transports transports{loop.io.get_executor(), {}};
    sip::Timers timers = sip::kCoreTimers, ue_timers = sip::kCoreTimers;
    sip::Transactions transactions{loop.io.get_executor(), transports, {}, [this](const sip::Flow& flow) {
                                       return flow.local == core_side ? timers : ue_timers;
                                   }};
    Table table;
    Counters counters;
    CoreLink link{config.core, transports, transactions};
    Router router{loop.io.get_executor(), config, table, link, transports, transactions, counters};
    ContactKey key{Impi("alice_private@home.example"), "", ""};
    std::uint32_t mark = kSet;

    ProxyNetwork() {
        for (const Endpoint& local : {ps, pc, core_side}) REQUIRE(transports.listen(local, {}).has_value());
        transactions.set_doors([this](const sip::Flow& flow, sip::Direction) {
            const bool is_phone = flow.local == ps || flow.local == pc;
            return is_phone ? sip::Door{.owner = sip::OwnerId{kSet}} : CoreLink::door_of(flow);
        });
        transactions.on_request([this](std::shared_ptr<sip::ServerTransaction> transaction) {
            const bool from_core = transaction->flow().local == core_side;
            auto marked = std::make_shared<Marked>(std::move(transaction), Mark{from_core ? 0 : mark});
            spawn(loop.io.get_executor(), from_core ? router.from_core(marked) : router.from_ue(marked), "test");
        });
        transactions.on_stray([this](sip::OwnedMessage message, sip::Flow flow) {
            if (flow.local != core_side) flow.mark = Mark{mark};
            router.stray(std::move(message), flow);
        });
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{kSet};
        set->state = SetState::established;
        set->in_use = true;
        set->parameters.ue = set->parameters.gateway = sip::test::loopback(Family::v4);
        set->parameters.port_uc = ue_client.endpoint().port;
        set->parameters.port_us = ue_server.endpoint().port;
        set->parameters.port_pc = pc.port;
        set->parameters.port_ps = ps.port;
        auto registration = std::make_unique<Registration>();
        registration->key = key;
        registration->token = "tok1";
        registration->impus = {Impu("sip:alice@home.example")};
        registration->service_route = {"<sip:orig@scscf.home.example;lr>"};
        registration->realm_id = "access";
        registration->sets.push_back(std::move(set));
        table.add(std::move(registration));
    }
    ~ProxyNetwork() { transports.shutdown(); }

    Config make_config() const {
        Config c;
        c.core.listen = {core_side};
        c.core.next_hops = {NextHop{.endpoint = core_peer.endpoint()}};
        c.core.visited_network_id = "visited.example";
        SipInterface interface;
        interface.realm_id = "access";
        SipPort port;
        port.address = ps.address;
        port.ims_aka_profile = "p";
        interface.sip_ports.push_back(port);
        c.sip_interfaces.push_back(interface);
        ImsAkaProfile profile;
        profile.name = "p";
        profile.protected_server_ports = {ps.port};
        profile.start_protected_client_port = profile.end_protected_client_port = pc.port;
        c.ims_aka_profiles.push_back(profile);
        return c;
    }

    std::string from_ue(std::string_view method, std::string_view uri, std::string_view lines = "",
                        std::string_view branch = "z9hG4bKue1") const {
        return request(method, uri, lines, branch, ue_server.endpoint());
    }
    std::string from_core(std::string_view method, std::string_view lines,
                          std::string_view branch = "z9hG4bKcore1") const {
        return request(method, "sip:alice@192.0.2.7:1357", lines, branch, core_peer.endpoint());
    }
    static std::string request(std::string_view method, std::string_view uri, std::string_view lines,
                               std::string_view branch, const Endpoint& sent_by) {
        const bool in_dialog = lines.find("X-In-Dialog") != std::string_view::npos;
        return crlf(fmt::format(
            "{0} {1} SIP/2.0\nVia: SIP/2.0/UDP {2};branch={3}\nMax-Forwards: 70\nFrom: <sip:a@home.example>;tag=a1\n"
            "To: <sip:b@home.example>{4}\nCall-ID: c1\nCSeq: 7 {0}\n{5}Content-Length: 0\n\n",
            method, uri, sent_by.to_string(), branch, in_dialog ? ";tag=b1" : "", lines));
    }
    std::string our_route() const { return "Route: <sip:tok1@" + core_side.to_string() + ";lr>\n"; }
    enum class End { caller, callee };
    /// The Route line that this end of a dialog writes after a message with that Record-Route (RFC 3261 §12.1), behind
    /// X-In-Dialog.
    static std::string dialog_route(const std::string& text, End end) {
        const auto message = parse(text);
        auto values = values_of(*message, sip::HeaderId::record_route);
        if (end == End::caller) std::ranges::reverse(values);
        return fmt::format("X-In-Dialog: 1\nRoute: {}\n", fmt::join(values, ", "));
    }
    /// A response of the core, which has put itself into the dialog's route set, too.
    static std::string answer_by_way_of(std::string_view proxy, const std::string& request, int status) {
        std::string text = response_text(request, status);
        return text.insert(text.find("Record-Route: "), fmt::format("Record-Route: <sip:{};lr>\r\n", proxy));
    }
    /// A call of the phone that the core answers; the 200 as the phone got it.
    std::string established(std::string_view proxy = "scscf.home.example") {
        ue_client.send(from_ue("INVITE", "sip:bob@home.example", "", "z9hG4bKcall"), ps);
        REQUIRE(ue_server.receive().starts_with("SIP/2.0 100 "));
        core_peer.send(answer_by_way_of(proxy, core_peer.receive(), 200), core_side);
        return ue_server.receive();
    }
    /// Skips a 100 Trying.
    static std::string final_of(Peer& peer) {
        for (;;) {
            std::string text = peer.receive();
            if (text.empty() || !text.starts_with("SIP/2.0 100")) return text;
        }
    }
};

inline std::optional<Endpoint> peer_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    REQUIRE(::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

inline std::string first_line(const std::string& text) { return text.substr(0, text.find("\r\n")); }

inline std::string header(const std::string& text, std::string_view name) {
    const std::size_t at = text.find("\r\n" + std::string(name) + ": ");
    if (at == std::string::npos) return {};
    const std::size_t begin = at + name.size() + 4;
    return text.substr(begin, text.find("\r\n", begin) - begin);
}

}  // namespace gmgate::daemon::test
