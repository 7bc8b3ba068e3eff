// A register flow on the bench: fake kernel, still clock, a core that is a UDP socket on loopback, transactions as
// doubles.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>
#include <asio/steady_timer.hpp>

#include "sip/message/edit.h"
#include "tests/support/own_network.h"
#include "tests/support/register_parts.h"

namespace gmgate::test {

inline constexpr const char* kImpi = "001010000000001@ims.mnc001.mcc001.3gppnetwork.org";
inline constexpr const char* kClient =
    "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
    "ipsec-3gpp;alg= hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, tls";
/// Another offer of the same phone: other SPIs, another client port.
inline constexpr const char* kSecondClient =
    "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=18765423;port-c=7624;spi-s=11234563;port-s=1358, "
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=18765423;port-c=7624;spi-s=11234563;port-s=1358, tls";
inline constexpr const char* kCk = "b40ba9a3c58b2a05bbf0d987b21bf8cb";
inline constexpr const char* kIk = "f769bcd751044604127672711c6d3441";

/// What a REGISTER says; the defaults make a first, unprotected one.
struct Say {
    std::string client = kClient, verify{}, impi = kImpi, response{}, nonce{}, instance{}, contact_port = "1358",
                expires = "600000", host = "127.0.0.9";
    std::string extra{};                   ///< whole lines with CRLF
    std::optional<std::string> contact{};  ///< whole value of Contact instead of the usual one; "": no Contact
    bool sec_agree = true;
    int cseq = 1;
    std::string to = "sip:user@example";
};

class RegisterBench {
public:
    /// `t1`: of the transactions towards the core.
    explicit RegisterBench(const std::function<void(daemon::Config&)>& change = {},
                           std::chrono::milliseconds t1 = std::chrono::milliseconds{20})
        : t1_(t1) {
        core_.open(asio::ip::udp::v4());
        core_.bind({asio::ip::make_address("127.0.0.1"), 0});
        config.core.next_hops = {
            daemon::NextHop{.endpoint = {*Address::parse("127.0.0.1"), Port{core_.local_endpoint().port()}}}};
        config.core.listen = {{*Address::parse("127.0.0.1"), gmgate::test::fresh_port()}};
        config.core.visited_network_id = "visited.example";
        config.core.orig_ioi = "visited.example";
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
        interface.sip_ports.push_back({.address = gateway, .ims_aka_profile = "volte"});
        interface.sip_ports.push_back(
            {.address = gateway, .port = Port{5061}, .udp = false, .tcp = false, .tls = true, .tls_profile = "tls"});
        config.sip_interfaces.push_back(interface);
        config.limits.authentications = {.in_all = 0, .per_source = 0, .per_impi = 0};  // but where that is the subject
        if (change) change(config);
        build();
    }

    /// Runs one REGISTER through the flow and returns its transaction. A message without an answer is returned as such.
    std::shared_ptr<RecordedTransaction> send(const Say& say, const sip::Flow& flow) {
        return send_text(text_of(say, flow), flow);
    }
    /// The same for a REGISTER written elsewhere.
    std::shared_ptr<RecordedTransaction> send_text(std::string_view text, const sip::Flow& flow) {
        auto parsed = sip::OwnedMessage::parse(text);
        REQUIRE_MESSAGE(parsed.has_value(), std::string(text));
        auto transaction = std::make_shared<RecordedTransaction>(std::move(*parsed), flow);
        asio::co_spawn(loop, parts_->flow.handle(transaction), asio::detached);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
        while (!transaction->is_completed() && !quiet() && std::chrono::steady_clock::now() < deadline)
            loop.run_one_for(std::chrono::milliseconds{50});
        loop.poll();
        return transaction;
    }
    std::shared_ptr<RecordedTransaction> send(const Say& say) { return send(say, unprotected()); }

    sip::Flow unprotected() const { return {sip::Transport::udp, {gateway, Port{5060}}, {ue, Port{5060}}, {}, {}}; }
    /// A new TLS connection of the phone, known to the transports.
    sip::Flow tls_connection() {
        const sip::Flow flow{sip::Transport::tls, {gateway, Port{5061}}, {ue, Port{40001}}, {}, {}};
        return parts_->transports.adopt(std::make_unique<IdleStream>(loop.get_executor()), flow);
    }
    /// The flow of a set as the kernel would report it.
    sip::Flow over(const daemon::SaSet& set) const {
        return {sip::Transport::udp, set.gateway_server(), set.ue_client(), {}, Mark{set.number.value}};
    }
    daemon::SaSet* temporary_set(bool is_emergency = false) {
        auto* challenge = parts_->table.find_challenge({Impi{kImpi}, ue, is_emergency});
        return challenge ? challenge->set.get() : nullptr;
    }
    daemon::Registration* registration() {
        const auto found = parts_->table.find_by_impi(Impi{kImpi});
        return found.empty() ? nullptr : found.front();
    }
    /// SM1 and SM6; returns the temporary set.
    daemon::SaSet& challenge() {
        const auto sm6 = send({});
        REQUIRE(status_of(*sm6) == 401);
        REQUIRE(temporary_set());
        return *temporary_set();
    }
    Say answer_to(const daemon::SaSet& set, const std::string& client = kClient) const {
        Say say;
        say.client = client;
        say.verify = set.security_server;
        say.response = "6629fae49393a05397450978507c4ef1";
        say.nonce = nonce;
        say.cseq = 2;
        return say;
    }
    /// Two first REGISTERs at once, older and newer; the core answers both when it has them, in that order or turned.
    std::pair<std::shared_ptr<RecordedTransaction>, std::shared_ptr<RecordedTransaction>> challenge_two(bool turned) {
        const auto start = [&] {
            auto parsed = sip::OwnedMessage::parse(text_of({}, unprotected()));
            auto transaction = std::make_shared<RecordedTransaction>(std::move(*parsed), unprotected());
            asio::co_spawn(loop, parts_->flow.handle(transaction), asio::detached);
            return transaction;
        };
        const int status = std::exchange(core_status, 0);
        std::vector<std::string> asked;
        const auto older = start();
        run_until([&] { return core_saw.size() == 1; });
        asked.push_back(core_saw.front());
        const auto newer = start();
        run_until([&] { return core_saw.back() != asked.front(); });
        asked.push_back(core_saw.back());
        if (turned) std::swap(asked[0], asked[1]);
        core_status = status;
        answer_as_core(asked[0]);
        run_until([&] { return (turned ? newer : older)->is_completed(); });
        answer_as_core(asked[1]);
        run_until([&] { return older->is_completed() && newer->is_completed(); });
        return {older, newer};
    }
    /// Two REGISTERs that cross: the core has the first and answers it only after the second.
    std::pair<int, int> crossed(const Say& first, const sip::Flow& first_flow, const Say& second,
                                const sip::Flow& second_flow) {
        const int status = std::exchange(core_status, 0);
        auto parsed = sip::OwnedMessage::parse(text_of(first, first_flow));
        auto transaction = std::make_shared<RecordedTransaction>(std::move(*parsed), first_flow);
        const auto seen_before = core_saw.size();
        asio::co_spawn(loop, parts_->flow.handle(transaction), asio::detached);
        run_until([&] { return core_saw.size() > seen_before; });
        const auto asked = held_ = core_saw.back();
        core_status = status;
        const int answered = status_of(*send(second, second_flow));
        answer_as_core(asked);
        run_until([&] { return transaction->is_completed(); });
        return {status_of(*transaction), answered};
    }
    /// The whole registration; returns the registration.
    daemon::Registration& registered() {
        auto& set = challenge();
        const auto say = answer_to(set);
        const auto flow = over(set);
        core_status = 200;
        REQUIRE(status_of(*send(say, flow)) == 200);
        core_status = 401;
        REQUIRE(registration());
        return *registration();
    }
    void sweep() {
        asio::co_spawn(loop, parts_->expiry.sweep(), asio::detached);
        loop.poll();
    }

    /// Time goes on, and what ends by then ends.
    void let_pass(std::chrono::seconds time) {
        clock.advance(time);
        sweep();
    }

    static int status_of(const RecordedTransaction& transaction) {
        return transaction.responses.empty() ? 0 : std::stoi(transaction.responses.back().substr(8, 3));
    }
    static std::string header(const std::string& message, const std::string& name) {
        const auto parsed = sip::Message::parse(message);
        return parsed ? std::string(parsed->value(sip::header_id(name))) : "unparseable";
    }

    asio::io_context loop;
    StillClock clock;
    FakeKernel kernel{&clock};
    daemon::Config config;
    Address gateway = *Address::parse("127.0.0.1");
    Address ue = *Address::parse("127.0.0.9");
    int core_status = 401;
    bool core_sends_keys = true;
    std::string core_identities = "<sip:user@example>", core_route = "<sip:orig@scscf.example;lr>";  ///< of its 200
    std::optional<std::string> core_contact;  ///< Contact of the core's 200; none: as the request has it
    std::string nonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";
    std::vector<std::string> core_saw;

    using Parts = RegisterTestParts;
    Parts& parts() { return *parts_; }
    daemon::AuthenticationBudget& budget() { return budget_; }

private:
    void build() {
        parts_ = std::make_unique<Parts>(loop, config, kernel, clock, t1_, &budget_);
        REQUIRE(parts_->transports.listen(config.core.listen.front(), {.udp = true, .tcp = false}).has_value());
        serve_core();
    }
    bool quiet() const {
        return parts_->transactions.client_count() == 0 && kernel.held() == 0 && started_ && ++idle_ > 3;
    }

    void run_until(const std::function<bool()>& done) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{5};
        while (!done() && std::chrono::steady_clock::now() < deadline) loop.run_one_for(std::chrono::milliseconds{50});
        REQUIRE(done());
    }

    void serve_core() {
        core_.async_receive_from(asio::buffer(buffer_), from_, [this](const asio::error_code& error, std::size_t size) {
            if (error) return;
            core_saw.emplace_back(buffer_.data(), size);
            if (core_saw.back() != held_) answer_as_core(core_saw.back());  // a copy of it is no news
            serve_core();
        });
    }

    void answer_as_core(const std::string& seen) {
        const auto request = sip::Message::parse(seen);
        REQUIRE(request.has_value());
        if (core_status != 0) {
            std::vector<std::string> extra;
            if (core_status == 401)
                extra.push_back(
                    fmt::format("WWW-Authenticate: Digest realm=\"ims\", nonce=\"{}\", algorithm=AKAv1-MD5{}", nonce,
                                core_sends_keys ? fmt::format(", ck=\"{}\", ik=\"{}\"", kCk, kIk) : ""));
            if (core_status == 200) {
                const auto contact = std::string(request->value(sip::HeaderId::contact));
                if (core_contact) extra.push_back("Contact: " + *core_contact);
                else if (contact.find("expires=0") == std::string::npos && !contact.empty())
                    extra.push_back("Contact: " + contact);
                extra.emplace_back("Service-Route: " + core_route);
                if (!core_identities.empty()) extra.emplace_back("P-Associated-URI: " + core_identities);
            }
            const auto response = sip::make_response(*request, core_status, "Whatever", "core", extra);
            core_.send_to(asio::buffer(response), from_);
        }
    }

    std::string text_of(const Say& say, const sip::Flow& flow) const {
        std::string text = "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\n";
        text += fmt::format("Via: SIP/2.0/UDP {}:{};branch=z9hG4bK{}{}\r\n", say.host,
                            flow.local.port.value == 5060 ? "5060" : say.contact_port, say.cseq, ++branches_);
        text +=
            fmt::format("Max-Forwards: 70\r\nFrom: <{}>;tag=4fa3\r\nTo: <{}>\r\nCall-ID: apb03a0s09dkjdfglkj49111\r\n",
                        say.to, say.to);
        text += fmt::format("CSeq: {} REGISTER\r\n", say.cseq);
        const auto usual = fmt::format("<sip:{}:{}>;expires={}{}", say.host, say.contact_port, say.expires,
                                       say.instance.empty() ? "" : ";+sip.instance=\"" + say.instance + "\"");
        if (const auto contact = say.contact.value_or(usual); !contact.empty()) text += "Contact: " + contact + "\r\n";
        if (!say.impi.empty())
            text += fmt::format(
                "Authorization: Digest username=\"{}\", realm=\"ims\", nonce=\"{}\", uri=\"sip:ims\", response=\"{}\"\r\n",
                say.impi, say.nonce, say.response);
        if (!say.client.empty()) text += "Security-Client: " + say.client + "\r\n";
        if (!say.verify.empty()) text += "Security-Verify: " + say.verify + "\r\n";
        if (say.sec_agree) text += "Require: sec-agree\r\nProxy-Require: sec-agree\r\n";
        return text + say.extra + "Supported: path\r\nContent-Length: 0\r\n\r\n";
    }

    asio::ip::udp::socket core_{loop};
    asio::ip::udp::endpoint from_;
    std::array<char, 65536> buffer_{};
    std::chrono::milliseconds t1_;
    daemon::AuthenticationBudget budget_{config.limits.authentications, clock};
    std::unique_ptr<Parts> parts_;
    mutable int branches_ = 0;
    mutable int idle_ = 0;
    bool started_ = false;
    std::string held_;  ///< the request whose answer crosses another's
};

}  // namespace gmgate::test
