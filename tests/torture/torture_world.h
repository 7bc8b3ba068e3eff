// A registered phone, the gateway's transports, transactions and router, and a core, on real sockets of the loopback: what a torture
// message meets after the kernel has taken it out of ESP.
#pragma once

#include <memory>
#include <string>

#include "daemon/proxy/router.h"
#include "sip/spawn.h"
#include "tests/unit/sip_net_support.h"

namespace gmgate::daemon::test {

/// A server transaction whose flow has the mark of the phone's inbound SA, which the kernel would report.
class MarkedTransaction final : public sip::ServerTransaction {
public:
    MarkedTransaction(std::shared_ptr<sip::ServerTransaction> inner, Mark mark) : inner_(std::move(inner)), flow_(inner_->flow()) { flow_.mark = mark; }
    const sip::Message& request() const override { return inner_->request(); }
    const sip::Flow& flow() const override { return flow_; }
    void set_reply_flow(const sip::Flow& flow) override { inner_->set_reply_flow(flow); }
    const sip::Flow& reply_flow() const override { return inner_->reply_flow(); }
    Result<void> respond(std::string response) override { return inner_->respond(std::move(response)); }
    bool is_completed() const override { return inner_->is_completed(); }
    void on_cancel(std::function<void()> handler) override { inner_->on_cancel(std::move(handler)); }

private:
    std::shared_ptr<sip::ServerTransaction> inner_;
    sip::Flow flow_;
};

struct TortureWorld {
    static constexpr std::uint32_t kSet = 77;

    gmgate::sip::test::Loop loop;
    gmgate::sip::test::Peer phone = gmgate::sip::test::Peer::udp(loop, Family::v4), core = gmgate::sip::test::Peer::udp(loop, Family::v4);
    Endpoint ps = gmgate::sip::test::free_endpoint(Family::v4), core_side = gmgate::sip::test::free_endpoint(Family::v4);
    Config config = make_config();
    sip::Transports transports{loop.io.get_executor(), {}};
    sip::Transactions transactions{loop.io.get_executor(), transports, {}, [](const sip::Flow&) { return sip::kCoreTimers; }};
    Table table;
    Counters counters;
    CoreLink link{config.core, transports, transactions};
    Router router{loop.io.get_executor(), config, table, link, transports, transactions, counters};
    int requests = 0, strays = 0;  ///< that came through to the router

    TortureWorld() {
        for (const Endpoint& local : {ps, core_side}) REQUIRE(transports.listen(local, {}).has_value());
        transactions.on_request([this](std::shared_ptr<sip::ServerTransaction> transaction) {
            ++requests;
            auto marked = std::make_shared<MarkedTransaction>(std::move(transaction), Mark{kSet});
            sip::spawn(loop.io.get_executor(), router.from_ue(marked), "torture");
        });
        transactions.on_stray([this](sip::OwnedMessage message, sip::Flow flow) {
            ++strays;
            flow.mark = Mark{kSet};
            router.stray(std::move(message), flow);
        });
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{kSet};
        set->state = SetState::established;
        set->in_use = true;
        set->parameters.ue = set->parameters.gateway = gmgate::sip::test::loopback(Family::v4);
        // One socket is both ports of the phone, and one both of ours: who may talk to which is not the question here.
        set->parameters.port_uc = set->parameters.port_us = phone.endpoint().port;
        set->parameters.port_pc = set->parameters.port_ps = ps.port;
        auto registration = std::make_unique<Registration>();
        registration->key = {Impi("caller@example.net"), "", ""};
        registration->token = "tok1";
        registration->impus = {Impu("sip:caller@example.net")};
        registration->service_route = {"<sip:orig@scscf.example.net;lr>"};
        registration->realm_id = "access";
        registration->sets.push_back(std::move(set));
        table.add(std::move(registration));
    }
    ~TortureWorld() { transports.shutdown(); }

private:
    Config make_config() const {
        Config c;
        c.core.listen = core_side;
        c.core.next_hops = {NextHop{.endpoint = core.endpoint()}};
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
        profile.start_protected_client_port = profile.end_protected_client_port = ps.port;
        c.ims_aka_profiles.push_back(profile);
        return c;
    }
};

}  // namespace gmgate::daemon::test
