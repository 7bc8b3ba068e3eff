// Calls of a phone: INVITE, 18x, 200, ACK, BYE and CANCEL, reliable provisional responses (RFC 3262), UPDATE (RFC
// 3311), re-INVITE and hold (RFC 3264 §8.4), several early dialogs. A callee answers by itself. No media: the SDP is a
// formality.
//
// calls.cpp: the caller and what comes in; callee.cpp: who is called; mid_call.cpp: requests inside a dialog.
#pragma once

#include "phone.h"

#include <list>

namespace gmgate::peers {

class Calls {
public:
    explicit Calls(Phone& phone) : phone_(phone) {}
    /// Calls, talks, hangs up.
    [[nodiscard]] Task<Verdict> call(std::string to, Duration talk);
    void hang_up();
    /// Cancels every call of ours that has not been answered; emits "cancel_sent".
    [[nodiscard]] Task<void> cancel();
    /// Answers every call to us that rings.
    void pick_up();
    /// A re-INVITE ("INVITE") or UPDATE with an offer of that direction (sendrecv, sendonly: hold) in the standing
    /// call; emits "reinvite_sent" or "update_sent".
    [[nodiscard]] Task<void> renegotiate(std::string method, std::string direction);
    void on_request(const Incoming& incoming);
    /// A response that no transaction waits for: a repeated 2xx to an INVITE gets its ACK again (RFC 3261 §13.2.2.4).
    void on_stray_response(const SipMessage& response);

private:
    enum class State { ringing, established, over };
    /// The other end of a dialog as it names itself; with several early dialogs there are several.
    struct Far {
        std::string remote;               ///< To of our requests
        std::string target;               ///< its Contact
        std::vector<std::string> routes;  ///< for Route, topmost first
        std::uint32_t rseq = 0;           ///< last reliable response acknowledged
    };
    struct Dialog {
        State state = State::ringing;
        bool outgoing = false;
        std::string call_id;
        std::string local;  ///< From of our requests
        Far far;
        std::map<std::string, Far> early;  ///< by To tag; the caller's
        std::uint32_t cseq = 1;
        std::optional<SipMessage> invite;  ///< as sent, for CANCEL
        std::optional<SipMessage> ack;     ///< as sent, for repeated 2xx
        std::uint32_t reinvite = 0;        ///< CSeq of a re-INVITE that waits for its ACK
        std::string wanted_rack;           ///< of the reliable response sent last; the callee's
        bool acknowledged = false;
        Mailbox<std::string> ringing;  ///< callee: "prack", "cancel", "answer"
        Mailbox<std::string> ended;    ///< why the talk ends
        explicit Dialog(Loop& loop) : ringing(loop), ended(loop) {}
    };
    [[nodiscard]] Dialog* find(const std::string& call_id);
    [[nodiscard]] Far far_of(const SipMessage& response) const;
    [[nodiscard]] SipMessage in_dialog(std::string_view method, const Dialog& dialog, const Far& far,
                                       std::uint32_t cseq);
    void emit(std::string_view event, const Dialog& dialog, nlohmann::json more = nlohmann::json::object()) const;

    // the caller
    void on_provisional(Dialog& dialog, const SipMessage& response);
    Task<void> acknowledge_provisional(Dialog& dialog, std::string tag, std::string rack);
    Task<void> send_cancel(Dialog& dialog);
    Task<Verdict> bye(Dialog& dialog);
    [[nodiscard]] Path way() const { return phone_.path(phone_.config_.message_over_tcp); }

    // callee.cpp
    enum class Rung { on, cancelled, gone };
    void on_invite(const Incoming& incoming);
    Task<void> answer(Incoming invite, Dialog& dialog);
    Task<Rung> ring(const Incoming& invite, Dialog& dialog, std::string tag);
    Task<Rung> send_reliably(const Incoming& invite, Dialog& dialog, SipMessage response);
    Task<bool> repeat_until_ack(const Incoming& invite, Dialog& dialog, SipMessage ok);
    void finish_unanswered(const Incoming& invite, Dialog& dialog, int status, const std::string& tag);
    [[nodiscard]] SipMessage accept(const Incoming& invite, int status, const std::string& tag) const;

    // mid_call.cpp
    void on_ack(Dialog* dialog, const SipMessage& request);
    void on_bye(const Incoming& incoming, Dialog* dialog);
    void on_prack(const Incoming& incoming, Dialog* dialog);
    void on_offer(const Incoming& incoming, Dialog* dialog);

    Phone& phone_;
    std::list<Dialog> dialogs_;
    Tasks background_;
};

/// An offer or answer of that direction from that address.
[[nodiscard]] std::string make_sdp(const Endpoint& local, std::string_view direction = "sendrecv");
/// The direction of the first media description: "sendrecv" when none is named (RFC 4566 §6), empty without a body.
[[nodiscard]] std::string direction_of(std::string_view sdp);
/// What answers an offer of that direction (RFC 3264 §6.1).
[[nodiscard]] std::string_view answering_direction(std::string_view offered);

}  // namespace gmgate::peers
