// One phone: its registration, its requests, and what it answers. The registration itself is in register_flow.cpp.
#pragma once

#include "../common/digest.h"
#include "phone_link.h"
#include "sqn_store.h"
#include "transactions.h"

#include <nlohmann/json.hpp>

namespace gmgate::peers {

using Emit = std::function<void(nlohmann::json)>;

/// What all phones of the process share.
struct PhoneEnvironment {
    Loop& loop;
    SaProgrammer* sas;
    SpiPool& spis;
    MessageLog& log;
    SqnStore& sqns;
    Emit emit;
};

/// How something that the phone tried ended.
struct Verdict {
    bool ok = false;
    int status = 0;  ///< of the last final response, 0 when there was none
    std::string
        reason;  ///< one word for tests and statistics: "ok", "status-403", "timeout", "autn-mac", "ck-ik-leaked", …
    std::string detail;  ///< for people
    Duration took{};
};

enum class RegisterKind { initial, refresh, deregister };

class Calls;

class Phone {
public:
    Phone(PhoneEnvironment environment, PhoneConfig config);
    ~Phone();
    Phone(const Phone&) = delete;
    Phone& operator=(const Phone&) = delete;

    [[nodiscard]] Result<void> open() { return link_.open(); }
    /// Registers, refreshes or deregisters; emits "registered", "reregistered", "deregistered" or "register_failed".
    /// `headers` go into the first REGISTER of this run only.
    [[nodiscard]] Task<Verdict> register_now(RegisterKind kind, std::vector<Header> headers);
    /// Sends a MESSAGE; emits "message_sent".
    [[nodiscard]] Task<Verdict> message(std::string to, std::string text);
    /// A short message over IP (TS 24.341) by a service centre, in the GSM alphabet; emits "sms_sent", whose 202 or 200
    /// says no more than that the MESSAGE arrived. What comes is "sms_received"; RP-DATA is acknowledged by a MESSAGE
    /// of our own.
    [[nodiscard]] Task<Verdict> sms(std::string centre, std::string number, std::string text);
    /// Sends an OPTIONS; emits "options_sent".
    [[nodiscard]] Task<Verdict> options(std::string to);
    /// SUBSCRIBE to the reg event of its own identity (TS 24.229 §5.1.1.3); emits "subscribed". What the core notifies
    /// comes as "request_received" with the document as its body.
    [[nodiscard]] Task<Verdict> subscribe();
    /// Sends these bytes as they are, protected like a request of this phone; emits "injected".
    void inject(const std::string& bytes);
    /// Calls, talks for that long and hangs up; emits "call_…".
    [[nodiscard]] Task<Verdict> call(std::string to, Duration talk);
    /// Ends all calls.
    void hang_up();
    /// Answers every call to this phone that rings.
    void pick_up();
    /// Cancels calls that are not answered yet.
    [[nodiscard]] Task<void> cancel_calls();
    /// Re-INVITE ("INVITE") or UPDATE in the standing call, with an offer of that direction.
    [[nodiscard]] Task<void> renegotiate(std::string method, std::string direction);

    /// From the next REGISTER on; the registration itself goes on.
    void set_faults(const Faults& faults) { config_.faults = faults; }
    void set_expires(std::uint32_t seconds) { config_.expires = seconds; }

    [[nodiscard]] bool is_registered() const { return registered_; }
    [[nodiscard]] nlohmann::json status() const;
    [[nodiscard]] const PhoneConfig& config() const { return config_; }
    [[nodiscard]] std::string registered_text() const;

private:
    friend class Calls;
    /// What the challenge asks for and how it is answered; lives for one run of register_now.
    struct Attempt;

    // register_flow.cpp
    Task<Verdict> run_register(RegisterKind kind, std::vector<Header> headers);
    // The steps of run_register(); a verdict ends it.
    [[nodiscard]] std::optional<Verdict> begin_attempt(RegisterKind kind, Attempt& attempt);
    [[nodiscard]] std::optional<Verdict> offer_fresh_set(Attempt& attempt);
    [[nodiscard]] std::optional<Verdict> take_challenge(const SipMessage& response, Attempt& attempt);
    [[nodiscard]] Verdict end_unchallenged(RegisterKind kind, const SipMessage& response, Attempt& attempt,
                                           Verdict answer);
    [[nodiscard]] SipMessage make_register(RegisterKind kind, const Attempt& attempt, bool answering);
    [[nodiscard]] std::optional<Verdict> read_challenge(const SipMessage& response, Attempt& attempt);
    [[nodiscard]] std::optional<Verdict> authenticate(Attempt& attempt);
    [[nodiscard]] Result<std::optional<Endpoint>> public_address(const SipMessage& response, const Attempt& attempt,
                                                                 bool udp_enc_tun);
    [[nodiscard]] std::optional<Verdict> agree(const SipMessage& response, Attempt& attempt);
    [[nodiscard]] std::string authorization(const Attempt& attempt, ByteView password, const std::string& auts,
                                            bool empty_response = false) const;
    [[nodiscard]] std::optional<Verdict> agree_on_tls(const SipMessage& response);
    [[nodiscard]] Path second_path(const Attempt& attempt) const;
    void add_sec_agree_to_register(SipMessage& request, const Attempt& attempt, bool answering);
    void accept_200(RegisterKind kind, const SipMessage& response, const Attempt& attempt);
    void retire_old_sets(RegisterKind kind, bool new_set);
    void remove_set(SetId id, std::string_view why);

    // phone.cpp
    void on_incoming(Incoming incoming);
    void on_request(const Incoming& incoming);
    void on_sms(const SipMessage& request);
    Task<void> acknowledge_sms(SipMessage request, std::uint8_t reference);
    void note_use(const Incoming& incoming);
    Task<void> drop_set_later(SetId id);
    Task<Verdict> simple_request(SipMessage request, std::string event);
    /// A request outside a dialog with Route, identities and sec-agree headers.
    [[nodiscard]] SipMessage out_of_dialog(std::string method, const std::string& uri);
    void add_sec_agree(SipMessage& request) const;
    [[nodiscard]] std::vector<std::string> route_set() const;
    [[nodiscard]] Path path(bool tcp) const { return config_.tls != TlsUse::none ? kTlsPath : Path{current_, tcp}; }
    [[nodiscard]] bool uses_sec_agree() const { return config_.ipsec || config_.tls == TlsUse::during_registration; }
    /// Security-Server of the association in use, for Security-Verify; nullptr when none was agreed on.
    [[nodiscard]] const std::vector<std::string>* agreed_list() const;
    [[nodiscard]] std::string contact() const;
    void emit(nlohmann::json event) const;

    PhoneEnvironment env_;
    PhoneConfig config_;
    PhoneLink link_;
    Transactions transactions_;
    std::unique_ptr<Calls> calls_;
    Tasks background_;

    bool registered_ = false;
    SetId current_ = kClear;                    ///< the set in use for sending
    SetId old_ = kClear;                        ///< the set before it, kept until the new one was used by the network
    std::vector<std::string> tls_server_list_;  ///< Security-Server that chose tls
    std::string call_id_;
    std::string from_tag_;
    std::uint32_t cseq_ = 0;
    std::uint32_t granted_ = 0;
    std::string last_authorization_;  ///< repeated in a re-REGISTER (requirements C-20)
    std::uint8_t sms_reference_ = 0;
    std::vector<std::string> service_route_;
    std::vector<std::string> associated_uris_;
};

}  // namespace gmgate::peers
