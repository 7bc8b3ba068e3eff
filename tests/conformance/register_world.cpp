#include "tests/conformance/register_world.h"

#include <algorithm>
#include <stdexcept>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "tests/support/own_network.h"

namespace gmgate::test {
daemon::Config RegisterWorld::usual_config() {
    daemon::Config config;
    daemon::ImsAkaProfile profile;
    profile.name = "volte";
    profile.protected_server_ports = {Port{6100}, Port{6101}};
    profile.start_protected_client_port = Port{6200};
    profile.end_protected_client_port = Port{6203};
    profile.preference.assign(kDefaultPreference.begin(), kDefaultPreference.end());
    config.ims_aka_profiles.push_back(profile);
    daemon::SipInterface interface;
    interface.realm_id = "access";
    interface.sec_agree_feature = true;
    daemon::SipPort clear;
    clear.address = *Address::parse("127.0.0.1");
    clear.ims_aka_profile = "volte";
    daemon::SipPort tls = clear;
    tls.port = Port{5061};
    tls.udp = tls.tcp = false;
    tls.tls = true;
    tls.ims_aka_profile.clear();
    tls.tls_profile = "tls";
    interface.sip_ports = {clear, tls};
    config.sip_interfaces.push_back(interface);
    config.core.visited_network_id = "visited.example";
    config.core.orig_ioi = "visited.example";  // what the parser makes of it
    return config;
}

RegisterWorld::RegisterWorld(daemon::Config made, std::chrono::milliseconds t1) : config(std::move(made)) {
    const auto loopback = asio::ip::make_address("127.0.0.1");
    core_.open(asio::ip::udp::v4());
    core_.bind({loopback, 0});
    config.core.next_hops = {
        daemon::NextHop{.endpoint = {*Address::parse("127.0.0.1"), Port{core_.local_endpoint().port()}}}};
    config.core.listen = {{*Address::parse("127.0.0.1"), test::fresh_port()}};
    parts_ = std::make_unique<Parts>(loop, config, kernel, clock, t1);
    if (!parts_->transports.listen(config.core.listen.front(), {.udp = true, .tcp = false}))
        throw std::runtime_error("no UDP socket on loopback");
    parts_->transports.on_closed([this](const sip::Flow& flow) { connection_ended(flow); });
    serve_core();
}

// A-26, as the gateway does it: with its TLS connection the registrations over it end.
void RegisterWorld::connection_ended(const sip::Flow& flow) {
    if (flow.transport != sip::Transport::tls) return;
    auto& table = parts_->table;
    for (auto* registration : table.bound_to(flow.connection)) {
        table.unbind(*registration);
        if (registration->sets.empty()) table.take(daemon::ContactKey{registration->key});
    }
}

// What still runs is let go first: its coroutines refer to the parts.
RegisterWorld::~RegisterWorld() {
    kernel.release();
    settle();
    parts_->transports.shutdown();
    asio::error_code ignored;
    core_.close(ignored);
    loop.poll();
}

std::shared_ptr<RecordedTransaction> RegisterWorld::start(std::string_view text, const sip::Flow& flow) {
    auto message = sip::OwnedMessage::parse(text);
    if (!message) return nullptr;
    screen(flow);
    auto transaction = std::make_shared<RecordedTransaction>(std::move(*message), flow);
    running_.push_back(transaction);
    asio::co_spawn(loop, parts_->flow.handle(transaction), [transaction](std::exception_ptr problem) {
        if (problem) std::rethrow_exception(problem);
        transaction->is_done = true;
    });
    return transaction;
}

// As the gateway does with every message: the phone's first one over a new set takes it into use (C-43).
void RegisterWorld::screen(const sip::Flow& flow) {
    const auto owner = parts_->table.owner_of(flow);
    if (!owner.registration || !owner.set) return;
    if (daemon::take_into_use(*owner.registration, owner.set->number, clock.now(), config.timers.old_set))
        for (const auto& set : owner.registration->sets) parts_->expiry.watch(set->number, set->expires);
}

sip::Flow RegisterWorld::tls_connection(const Endpoint& phone) {
    const sip::Flow flow{sip::Transport::tls, {*Address::parse("127.0.0.1"), Port{5061}}, phone, {}, {}};
    return parts_->transports.adopt(std::make_unique<IdleStream>(loop.get_executor()), flow);
}

void RegisterWorld::settle() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    for (;;) {
        loop.poll();
        std::erase_if(running_, [](const auto& transaction) { return transaction->is_done; });
        if (running_.empty() && sweeps_ == 0) return;
        // Nobody waits for the core: the rest waits for the kernel.
        if (kernel.held() > 0 && parts_->transactions.client_count() == 0) return;
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("a REGISTER is neither done nor does it wait for anything");
        loop.run_one_for(std::chrono::milliseconds{20});
    }
}

std::shared_ptr<RecordedTransaction> RegisterWorld::send(std::string_view text, const sip::Flow& flow) {
    auto transaction = start(text, flow);
    settle();
    return transaction;
}

void RegisterWorld::wait(std::chrono::seconds time) {
    clock.advance(time);
    ++sweeps_;
    asio::co_spawn(loop, parts_->expiry.sweep(), [this](std::exception_ptr problem) {
        --sweeps_;
        if (problem) std::rethrow_exception(problem);
    });
    settle();
}

std::vector<daemon::FlowOwner> RegisterWorld::owners() {
    std::vector<daemon::FlowOwner> owners;
    auto& table = parts_->table;
    for (std::uint32_t number = 1; owners.size() < table.set_count() && number < 100000; ++number)
        if (const auto owner = table.find_set(SetNumber{number}); owner.set) owners.push_back(owner);
    return owners;
}

sip::Flow RegisterWorld::over(const daemon::SaSet& set) {
    return {sip::Transport::udp, set.gateway_server(), set.ue_client(), {}, Mark{set.number.value}};
}

void RegisterWorld::serve_core() {
    core_.async_receive_from(asio::buffer(buffer_), from_, [this](const asio::error_code& error, std::size_t size) {
        if (error) return;
        answer_as_core({buffer_.data(), size});
        serve_core();
    });
}

void RegisterWorld::answer_as_core(const std::string& bytes) {
    const auto request = sip::Message::parse(std::string_view(bytes));
    if (!request) throw std::runtime_error("the core got bytes that are no SIP: " + bytes);
    const auto via = sip::top_via(*request);
    if (!via || !branches_.insert(std::string(via->branch())).second) return;
    core_saw.push_back(bytes);
    if (on_core_request) on_core_request(bytes);
    if (core_answers.empty()) return;
    const auto answer = std::move(core_answers.front());
    core_answers.pop_front();
    if (answer.empty()) return;
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < answer.size();) {
        const auto end = std::min(answer.find('\n', at), answer.size());
        const auto line = sip::trim(std::string_view(answer).substr(at, end - at));
        if (!line.empty()) lines.emplace_back(line);
        at = end + 1;
    }
    if (lines.empty() || lines.front().size() < 12)
        throw std::runtime_error("the core's answer has no status line: " + answer);
    const int status = std::stoi(lines.front().substr(8, 3));
    const auto phrase = lines.front().size() > 12 ? lines.front().substr(12) : std::string{};
    lines.erase(lines.begin());
    const auto response = sip::make_response(*request, status, phrase, "core", lines);
    core_.send_to(asio::buffer(response), from_);
}

}  // namespace gmgate::test
