// Requests inside a dialog: ACK, BYE, PRACK, and the offers of UPDATE and re-INVITE, both ways.
#include "calls.h"

#include <algorithm>

namespace gmgate::peers {

std::string make_sdp(const Endpoint& local, std::string_view direction) {
    const char* family = local.is_v6() ? "IP6" : "IP4";
    return fmt::format(
        "v=0\r\no=- 1 1 IN {0} {1}\r\ns=-\r\nc=IN {0} {1}\r\nt=0 0\r\nm=audio 49152 RTP/AVP 96\r\na=rtpmap:96 AMR-WB/16000\r\na={2}\r\n",
        family, local.address(), direction);
}

std::string direction_of(std::string_view sdp) {
    if (sdp.empty()) return {};
    for (const char* direction : {"sendonly", "recvonly", "inactive"})
        if (sdp.find(std::string("a=") + direction) != std::string_view::npos) return direction;
    return "sendrecv";
}

std::string_view answering_direction(std::string_view offered) {
    if (offered == "sendonly") return "recvonly";
    if (offered == "recvonly") return "sendonly";
    return offered;
}

void Calls::on_ack(Dialog* dialog, const SipMessage& request) {
    if (!dialog) return;
    if (dialog->state == State::over && !dialog->outgoing)
        return emit("failure_acknowledged", *dialog);  // of a 3xx…6xx: hop by hop
    if (dialog->reinvite != 0 && dialog->reinvite == request.cseq()) {
        dialog->reinvite = 0;
        return emit("reinvite_acknowledged", *dialog);
    }
    if (dialog->acknowledged || dialog->state != State::established) return;
    dialog->acknowledged = true;
    emit("call_established", *dialog, {{"from", request.uri_of("From")}});
}

void Calls::on_bye(const Incoming& incoming, Dialog* dialog) {
    const bool known = dialog && dialog->state == State::established;
    phone_.transactions_.respond(incoming,
                                 SipMessage::response_to(incoming.message, known ? 200 : 481, "", random_token()));
    if (!known) return;
    dialog->state = State::over;
    dialog->ended.put("bye");
    if (!dialog->outgoing)
        emit("call_ended", *dialog, {{"from", incoming.message.uri_of("From")}, {"by", "remote"}, {"ok", true}});
}

void Calls::on_prack(const Incoming& incoming, Dialog* dialog) {
    const bool wanted = dialog && dialog->state == State::ringing && !dialog->wanted_rack.empty() &&
                        incoming.message.get("RAck") == dialog->wanted_rack;
    phone_.transactions_.respond(incoming,
                                 SipMessage::response_to(incoming.message, wanted ? 200 : 481, "", random_token()));
    if (!wanted) return;
    dialog->wanted_rack.clear();
    emit("prack_received", *dialog, {{"tag", incoming.message.tag("To")}, {"protected", incoming.path.is_protected()}});
    dialog->ringing.put("prack");
}

// A re-INVITE, or an UPDATE in an early or standing dialog.
void Calls::on_offer(const Incoming& incoming, Dialog* dialog) {
    const SipMessage& request = incoming.message;
    const bool update = request.is("UPDATE");
    const bool alive = dialog && (dialog->state == State::established || (update && dialog->state == State::ringing));
    if (!alive)
        return phone_.transactions_.respond(incoming, SipMessage::response_to(request, 481, "", random_token()));
    const std::string offered = direction_of(request.body);
    SipMessage ok = accept(incoming, 200, {});
    if (!offered.empty()) {
        ok.add("Content-Type", "application/sdp");
        ok.body = make_sdp(phone_.config_.local, answering_direction(offered));
    }
    if (!update) dialog->reinvite = request.cseq();
    if (const std::string target = request.uri_of("Contact"); !target.empty())
        dialog->far.target = target;  // RFC 3261 §12.2.2
    phone_.transactions_.respond(incoming, ok);
    emit(update ? "update_received" : "reinvite_received", *dialog,
         {{"direction", offered},
          {"early", dialog->state == State::ringing},
          {"protected", incoming.path.is_protected()}});
}

Task<void> Calls::renegotiate(std::string method, std::string direction) {
    const auto it = std::ranges::find(dialogs_, State::established, &Dialog::state);
    if (it == dialogs_.end()) {
        phone_.emit({{"event", "error"}, {"text", "no call stands"}});
        co_return;
    }
    Dialog& dialog = *it;
    SipMessage request = in_dialog(method, dialog, dialog.far, ++dialog.cseq);
    request.add("Contact", phone_.contact());
    request.add("Content-Type", "application/sdp");
    request.body = make_sdp(phone_.config_.local, direction);
    const Reply reply = co_await phone_.transactions_.request(std::move(request), way(), nullptr);
    const int status = reply.response ? reply.response->status() : 0;
    if (method == "INVITE" && status >= 200 && status < 300) {
        dialog.ack = in_dialog("ACK", dialog, dialog.far, reply.request.cseq());
        phone_.transactions_.send_ack(*dialog.ack, way());
    }
    const std::string answered = reply.response ? direction_of(reply.response->body) : std::string();
    emit(method == "INVITE" ? "reinvite_sent" : "update_sent", dialog,
         {{"status", status}, {"ok", status == 200}, {"early", false}, {"direction", answered}});
}

}  // namespace gmgate::peers
