// Who is called: rings, reliably when both sides can, in one or several early dialogs; then answers, refuses, or is
// cancelled.
#include "calls.h"

#include <algorithm>

namespace gmgate::peers {

SipMessage Calls::accept(const Incoming& invite, int status, const std::string& tag) const {
    SipMessage out = SipMessage::response_to(invite.message, status, "", tag);
    out.add("Contact", phone_.contact());
    return out;
}

void Calls::on_invite(const Incoming& incoming) {
    const SipMessage& request = incoming.message;
    Dialog& dialog = dialogs_.emplace_back(phone_.env_.loop);
    dialog.call_id = request.call_id();
    dialog.far.remote = request.get("From");
    dialog.far.target = request.uri_of("Contact");
    dialog.far.routes = request.list("Record-Route");
    emit("call_incoming", dialog,
         {{"from", request.uri_of("From")},
          {"transport", incoming.path.tls   ? "tls"
                        : incoming.path.tcp ? "tcp"
                                            : "udp"},
          {"local", incoming.local.to_string()},
          {"remote", incoming.remote.to_string()},
          {"protected", incoming.path.is_protected()}});
    background_.spawn(answer(incoming, dialog));
}

Task<void> Calls::answer(Incoming invite, Dialog& dialog) {
    const CallBehaviour& behaviour = phone_.config_.calls;
    std::string tag;
    for (int i = 0; i < std::max(behaviour.early_dialogs, 1) && behaviour.ring; ++i) {
        tag = random_token();
        const Rung rung = co_await ring(invite, dialog, tag);
        if (rung != Rung::on) co_return finish_unanswered(invite, dialog, rung == Rung::cancelled ? 487 : 504, tag);
    }
    if (tag.empty()) tag = random_token();
    const std::optional<std::string> event = co_await dialog.ringing.take(Clock::now() + phone_.config_.answer_after);
    if (event && *event != "answer") co_return finish_unanswered(invite, dialog, 487, tag);
    if (behaviour.reject != 0) co_return finish_unanswered(invite, dialog, behaviour.reject, tag);
    SipMessage ok = accept(invite, 200, tag);
    ok.add("Content-Type", "application/sdp");
    ok.body = make_sdp(phone_.config_.local);
    dialog.local = ok.get("To");
    dialog.state = State::established;
    phone_.transactions_.respond(invite, ok);
    if (!co_await repeat_until_ack(invite, dialog, std::move(ok))) co_return;
    // A callee hangs up only when told to.
    if (dialog.state == State::over) co_return;
    const std::optional<std::string> why = co_await dialog.ended.take(Clock::now() + std::chrono::hours(24));
    if (!why || *why != "hang-up" || dialog.state == State::over) co_return;
    const Verdict end = co_await bye(dialog);
    dialog.state = State::over;
    emit("call_ended", dialog, {{"from", invite.message.uri_of("From")}, {"by", "local"}, {"ok", end.ok}});
}

Task<Calls::Rung> Calls::ring(const Incoming& invite, Dialog& dialog, std::string tag) {
    if (phone_.config_.calls.reliable && invite.message.list_has("Supported", "100rel")) {
        SipMessage progress = accept(invite, 183, tag);
        progress.add("Content-Type", "application/sdp");
        progress.body = make_sdp(phone_.config_.local);
        dialog.local = progress.get("To");
        const Rung rung = co_await send_reliably(invite, dialog, std::move(progress));
        if (rung != Rung::on) co_return rung;
    }
    phone_.transactions_.respond(invite, accept(invite, 180, tag));
    co_return Rung::on;
}

// RFC 3262 §3: repeated from T1 on, doubling, for 64·T1 or the phone's patience; the PRACK ends it.
Task<Calls::Rung> Calls::send_reliably(const Incoming& invite, Dialog& dialog, SipMessage response) {
    const std::uint32_t rseq = (random_u32() & 0xffff) + 1;
    response.add("Require", "100rel");
    response.add("RSeq", std::to_string(rseq));
    dialog.wanted_rack = fmt::format("{} {} INVITE", rseq, invite.message.cseq());
    Duration interval = phone_.config_.t1;
    const auto give_up = Clock::now() + phone_.config_.timeout;
    while (Clock::now() < give_up) {
        phone_.transactions_.respond(invite, response);
        const std::optional<std::string> event = co_await dialog.ringing.take(Clock::now() + interval);
        if (event) co_return *event == "prack" ? Rung::on : Rung::cancelled;
        interval *= 2;
    }
    co_return Rung::gone;
}

// RFC 3261 §13.3.1.4: the 200 is repeated until the ACK comes, on any transport.
Task<bool> Calls::repeat_until_ack(const Incoming& invite, Dialog& dialog, SipMessage ok) {
    Duration interval = phone_.config_.t1;
    const auto give_up = Clock::now() + phone_.config_.timeout;
    while (Clock::now() < give_up) {
        co_await sleep_for(phone_.env_.loop, interval);
        if (dialog.acknowledged || dialog.state == State::over) co_return true;
        phone_.transactions_.respond(invite, ok);
        interval = std::min(interval * 2, phone_.config_.t2);
    }
    emit("call_ended", dialog, {{"from", invite.message.uri_of("From")}, {"by", "no-ack"}, {"ok", false}});
    co_return false;
}

void Calls::pick_up() {
    for (Dialog& dialog : dialogs_)
        if (!dialog.outgoing && dialog.state == State::ringing) dialog.ringing.put("answer");
}

void Calls::finish_unanswered(const Incoming& invite, Dialog& dialog, int status, const std::string& tag) {
    dialog.state = State::over;
    phone_.transactions_.respond(invite, SipMessage::response_to(invite.message, status, "", tag));
    const char* by = status == 487 ? "cancel" : status == 504 ? "no-prack" : "refused";
    emit("call_ended", dialog,
         {{"from", invite.message.uri_of("From")}, {"by", by}, {"ok", status != 504}, {"status", status}});
}

}  // namespace gmgate::peers
