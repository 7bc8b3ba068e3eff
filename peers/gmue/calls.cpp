#include "calls.h"

#include <algorithm>

namespace gmgate::peers {

Calls::Dialog* Calls::find(const std::string& call_id) {
    const auto it = std::ranges::find(dialogs_, call_id, &Dialog::call_id);
    return it == dialogs_.end() ? nullptr : &*it;
}

void Calls::emit(std::string_view event, const Dialog& dialog, nlohmann::json more) const {
    more["event"] = event;
    more["call_id"] = dialog.call_id;
    phone_.emit(std::move(more));
}

Calls::Far Calls::far_of(const SipMessage& response) const {
    Far far;
    far.remote = response.get("To");
    far.target = response.uri_of("Contact");
    far.routes = response.list("Record-Route");
    std::ranges::reverse(far.routes);  // RFC 3261 §12.1.2
    return far;
}

SipMessage Calls::in_dialog(std::string_view method, const Dialog& dialog, const Far& far, std::uint32_t cseq) {
    SipMessage out = SipMessage::request(std::string(method), far.target);
    out.add("Max-Forwards", "70");
    for (const std::string& route : far.routes) out.add("Route", route);
    out.add("From", dialog.local);
    out.add("To", far.remote);
    out.add("Call-ID", dialog.call_id);
    out.add("CSeq", fmt::format("{} {}", cseq, method));
    if (method != "ACK") phone_.add_sec_agree(out);
    for (const Header& header : phone_.config_.extra_headers) out.add(header.name, header.value);
    return out;
}

// -------------------------------------------------------------------------------------------------------------------
// the caller

Task<Verdict> Calls::call(std::string to, Duration talk) {
    const auto start = Clock::now();
    SipMessage invite = phone_.out_of_dialog("INVITE", to);
    invite.add("Contact", phone_.contact());
    if (phone_.config_.calls.reliable) invite.add("Supported", "100rel");
    invite.add("Allow", "INVITE, ACK, BYE, CANCEL, PRACK, UPDATE");
    invite.add("Content-Type", "application/sdp");
    invite.body = make_sdp(phone_.config_.local);
    Dialog& dialog = dialogs_.emplace_back(phone_.env_.loop);
    dialog.outgoing = true;
    dialog.call_id = invite.call_id();
    dialog.local = invite.get("From");
    const Path path = way();
    phone_.transactions_.add_via(invite, path);
    dialog.invite = invite;
    Transactions::OnProvisional on_provisional_response = [this, &dialog](const SipMessage& response) {
        on_provisional(dialog, response);
    };
    const Reply reply =
        co_await phone_.transactions_.request(std::move(invite), path, std::move(on_provisional_response));
    Verdict out;
    out.took = Clock::now() - start;
    out.status = reply.response ? reply.response->status() : 0;
    out.ok = out.status >= 200 && out.status < 300;
    out.reason = out.ok                       ? "ok"
                 : reply.response             ? fmt::format("status-{}", out.status)
                 : reply.failure == "timeout" ? "timeout"
                                              : "send-failed";
    out.detail = reply.response ? reply.response->reason() : reply.failure;
    if (!out.ok) {
        dialog.state = State::over;
        emit("call_failed", dialog, {{"to", to}, {"status", out.status}, {"reason", out.reason}});
        co_return out;
    }
    dialog.state = State::established;
    dialog.far = far_of(*reply.response);
    dialog.ack = in_dialog("ACK", dialog, dialog.far, reply.request.cseq());
    phone_.transactions_.send_ack(*dialog.ack, way());
    emit("call_established", dialog,
         {{"to", to},
          {"tag", reply.response->tag("To")},
          {"ms", std::chrono::duration<double, std::milli>(out.took).count()}});
    const std::optional<std::string> why = co_await dialog.ended.take(Clock::now() + talk);
    if (!why || *why == "hang-up") {
        const Duration set_up = out.took;
        out = co_await bye(dialog);
        out.took = set_up;
    }
    dialog.state = State::over;
    emit("call_ended", dialog,
         {{"to", to}, {"by", why && *why == "bye" ? "remote" : "local"}, {"ok", out.ok}, {"status", out.status}});
    co_return out;
}

// RFC 3262 §4: one PRACK for each reliable response of each early dialog.
void Calls::on_provisional(Dialog& dialog, const SipMessage& response) {
    if (response.status() == 100) return;
    const std::string tag = response.tag("To");
    const bool reliable = response.list_has("Require", "100rel");
    emit("call_ringing", dialog,
         {{"to", dialog.invite->uri()}, {"status", response.status()}, {"tag", tag}, {"reliable", reliable}});
    if (!reliable) return;
    Far& far = dialog.early[tag];
    const auto rseq = static_cast<std::uint32_t>(std::strtoul(response.get("RSeq").c_str(), nullptr, 10));
    if (rseq <= far.rseq) return;  // a repetition
    if (far.target.empty()) far = far_of(response);
    far.rseq = rseq;
    background_.spawn(acknowledge_provisional(dialog, tag, fmt::format("{} {} INVITE", rseq, dialog.invite->cseq())));
}

Task<void> Calls::acknowledge_provisional(Dialog& dialog, std::string tag, std::string rack) {
    const Far far = dialog.early[tag];
    SipMessage prack = in_dialog("PRACK", dialog, far, ++dialog.cseq);
    prack.add("RAck", rack);
    const Reply reply = co_await phone_.transactions_.request(std::move(prack), way(), nullptr);
    const int status = reply.response ? reply.response->status() : 0;
    emit("prack_sent", dialog, {{"tag", tag}, {"status", status}, {"ok", status == 200}});
    if (!phone_.config_.calls.early_update || status != 200 || dialog.state != State::ringing) co_return;
    // As with preconditions (RFC 3312): resources are there, before the callee rings.
    SipMessage update = in_dialog("UPDATE", dialog, far, ++dialog.cseq);
    update.add("Contact", phone_.contact());
    update.add("Content-Type", "application/sdp");
    update.body = make_sdp(phone_.config_.local);
    const Reply updated = co_await phone_.transactions_.request(std::move(update), way(), nullptr);
    const int answer = updated.response ? updated.response->status() : 0;
    const std::string answered = updated.response ? direction_of(updated.response->body) : std::string();
    emit("update_sent", dialog,
         {{"tag", tag}, {"status", answer}, {"ok", answer == 200}, {"early", true}, {"direction", answered}});
}

Task<void> Calls::cancel() {
    for (Dialog& dialog : dialogs_)
        if (dialog.outgoing && dialog.state == State::ringing) co_await send_cancel(dialog);
}

// RFC 3261 §9.1: everything as in the INVITE, its Via included.
Task<void> Calls::send_cancel(Dialog& dialog) {
    const SipMessage& invite = *dialog.invite;
    SipMessage cancel = SipMessage::request("CANCEL", invite.uri());
    cancel.add("Via", invite.get("Via"));
    cancel.add("Max-Forwards", "70");
    for (const std::string& route : invite.list("Route")) cancel.add("Route", route);
    for (const char* name : {"From", "To", "Call-ID"}) cancel.add(name, invite.get(name));
    cancel.add("CSeq", fmt::format("{} CANCEL", invite.cseq()));
    const Reply reply = co_await phone_.transactions_.request(std::move(cancel), way(), nullptr);
    const int status = reply.response ? reply.response->status() : 0;
    emit("cancel_sent", dialog, {{"status", status}, {"ok", status == 200}});
}

Task<Verdict> Calls::bye(Dialog& dialog) {
    SipMessage request = in_dialog("BYE", dialog, dialog.far, ++dialog.cseq);
    const Reply reply = co_await phone_.transactions_.request(std::move(request), way(), nullptr);
    Verdict out;
    out.status = reply.response ? reply.response->status() : 0;
    out.ok = out.status == 200;
    out.reason = out.ok ? "ok" : reply.response ? fmt::format("status-{}", out.status) : reply.failure;
    out.detail =
        reply.response ? fmt::format("BYE {} {}", out.status, reply.response->reason()) : "BYE " + reply.failure;
    co_return out;
}

void Calls::hang_up() {
    for (Dialog& dialog : dialogs_)
        if (dialog.state == State::established) dialog.ended.put("hang-up");
}

// ------------------------------------------------------------------------------------------------------------------
// what comes in

void Calls::on_request(const Incoming& incoming) {
    const SipMessage& request = incoming.message;
    Dialog* dialog = find(request.call_id());
    if (request.is("INVITE"))
        return dialog || !request.tag("To").empty() ? on_offer(incoming, dialog) : on_invite(incoming);
    if (request.is("UPDATE")) return on_offer(incoming, dialog);
    if (request.is("ACK")) return on_ack(dialog, request);
    if (request.is("BYE")) return on_bye(incoming, dialog);
    if (request.is("PRACK")) return on_prack(incoming, dialog);
    if (dialog && dialog->state == State::ringing && !dialog->outgoing)
        dialog->ringing.put("cancel");  // CANCEL; answer() sends the 487
    phone_.transactions_.respond(incoming, SipMessage::response_to(request, dialog ? 200 : 481, "", random_token()));
}

void Calls::on_stray_response(const SipMessage& response) {
    if (response.method() != "INVITE" || response.status() < 200 || response.status() >= 300) return;
    Dialog* dialog = find(response.call_id());
    if (dialog && dialog->ack && dialog->ack->cseq() == response.cseq())
        phone_.transactions_.send_ack(*dialog->ack, way());
}

}  // namespace gmgate::peers
