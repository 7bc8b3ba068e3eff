#include "calls.h"

#include <algorithm>

namespace gmgate::peers {
namespace {

std::string sdp(const Endpoint& local) {
  const char* family = local.is_v6() ? "IP6" : "IP4";
  return fmt::format("v=0\r\no=- 1 1 IN {0} {1}\r\ns=-\r\nc=IN {0} {1}\r\nt=0 0\r\nm=audio 49152 RTP/AVP 96\r\na=rtpmap:96 AMR-WB/16000\r\na=sendrecv\r\n", family, local.address());
}

}  // namespace

Calls::Dialog* Calls::find(const std::string& call_id) {
  const auto it = std::ranges::find(dialogs_, call_id, &Dialog::call_id);
  return it == dialogs_.end() ? nullptr : &*it;
}

SipMessage Calls::in_dialog(std::string_view method, Dialog& dialog, std::uint32_t cseq) {
  SipMessage out = SipMessage::request(std::string(method), dialog.target);
  out.add("Max-Forwards", "70");
  for (const std::string& route : dialog.routes) out.add("Route", route);
  out.add("From", dialog.local);
  out.add("To", dialog.remote);
  out.add("Call-ID", dialog.call_id);
  out.add("CSeq", fmt::format("{} {}", cseq, method));
  if (method != "ACK") phone_.add_sec_agree(out);
  for (const Header& header : phone_.config_.extra_headers) out.add(header.name, header.value);
  return out;
}

Task<Verdict> Calls::call(std::string to, Duration talk) {
  const auto start = Clock::now();
  SipMessage invite = phone_.out_of_dialog("INVITE", to);
  invite.add("Contact", phone_.contact());
  invite.add("Content-Type", "application/sdp");
  invite.body = sdp(phone_.config_.local);
  Dialog& dialog = dialogs_.emplace_back(phone_.env_.loop);
  dialog.outgoing = true;
  dialog.call_id = invite.call_id();
  dialog.local = invite.get("From");
  const Path way = phone_.path(phone_.config_.message_over_tcp);
  Transactions::OnProvisional on_provisional = [this, to, id = dialog.call_id](const SipMessage& response) {
    if (response.status() > 100) phone_.emit({{"event", "call_ringing"}, {"to", to}, {"status", response.status()}, {"call_id", id}});
  };
  const Reply reply = co_await phone_.transactions_.request(std::move(invite), way, std::move(on_provisional));
  Verdict out;
  out.took = Clock::now() - start;
  out.status = reply.response ? reply.response->status() : 0;
  out.ok = out.status >= 200 && out.status < 300;
  out.reason = out.ok ? "ok" : reply.response ? fmt::format("status-{}", out.status) : reply.failure == "timeout" ? "timeout" : "send-failed";
  out.detail = reply.response ? reply.response->reason() : reply.failure;
  if (!out.ok) {
    dialog.state = State::over;
    phone_.emit({{"event", "call_failed"}, {"to", to}, {"status", out.status}, {"reason", out.reason}, {"call_id", dialog.call_id}});
    co_return out;
  }
  dialog.state = State::established;
  dialog.remote = reply.response->get("To");
  dialog.target = reply.response->uri_of("Contact");
  dialog.routes = reply.response->list("Record-Route");
  std::ranges::reverse(dialog.routes);  // RFC 3261 §12.1.2
  dialog.ack = in_dialog("ACK", dialog, reply.request.cseq());
  phone_.transactions_.send_ack(*dialog.ack, phone_.path(way.tcp));
  phone_.emit({{"event", "call_established"}, {"to", to}, {"call_id", dialog.call_id}, {"ms", std::chrono::duration<double, std::milli>(out.took).count()}});
  const std::optional<std::string> why = co_await dialog.ended.take(Clock::now() + talk);
  if (!why || *why == "hang-up") {
    const Duration set_up = out.took;
    out = co_await bye(dialog);
    out.took = set_up;
  }
  dialog.state = State::over;
  phone_.emit({{"event", "call_ended"}, {"to", to}, {"call_id", dialog.call_id}, {"by", why && *why == "bye" ? "remote" : "local"}, {"ok", out.ok}, {"status", out.status}});
  co_return out;
}

Task<Verdict> Calls::bye(Dialog& dialog) {
  SipMessage request = in_dialog("BYE", dialog, ++dialog.cseq);
  const Path way = phone_.path(phone_.config_.message_over_tcp);
  const Reply reply = co_await phone_.transactions_.request(std::move(request), way, nullptr);
  Verdict out;
  out.status = reply.response ? reply.response->status() : 0;
  out.ok = out.status == 200;
  out.reason = out.ok ? "ok" : reply.response ? fmt::format("status-{}", out.status) : reply.failure;
  out.detail = reply.response ? fmt::format("BYE {} {}", out.status, reply.response->reason()) : "BYE " + reply.failure;
  co_return out;
}

void Calls::hang_up() {
  for (Dialog& dialog : dialogs_)
    if (dialog.state == State::established) dialog.ended.put("hang-up");
}

void Calls::on_request(const Incoming& incoming) {
  Dialog* dialog = find(incoming.message.call_id());
  if (incoming.message.is("INVITE")) return on_invite(incoming);
  if (incoming.message.is("BYE")) return on_bye(incoming, dialog);
  if (incoming.message.is("ACK")) {
    if (dialog && !dialog->acknowledged && dialog->state == State::established) {
      dialog->acknowledged = true;
      phone_.emit({{"event", "call_established"}, {"from", incoming.message.uri_of("From")}, {"call_id", dialog->call_id}});
    }
    return;
  }
  if (dialog && dialog->state == State::ringing && !dialog->outgoing) dialog->cancelled = true;  // CANCEL; answer() sends the 487
  phone_.transactions_.respond(incoming, SipMessage::response_to(incoming.message, dialog ? 200 : 481, "", random_token()));
}

void Calls::on_bye(const Incoming& incoming, Dialog* dialog) {
  const bool known = dialog && dialog->state == State::established;
  phone_.transactions_.respond(incoming, SipMessage::response_to(incoming.message, known ? 200 : 481, "", random_token()));
  if (!known) return;
  dialog->state = State::over;
  dialog->ended.put("bye");
  if (!dialog->outgoing) phone_.emit({{"event", "call_ended"}, {"from", incoming.message.uri_of("From")}, {"call_id", dialog->call_id}, {"by", "remote"}, {"ok", true}});
}

SipMessage Calls::accept(const Incoming& invite, int status, const std::string& tag) const {
  SipMessage out = SipMessage::response_to(invite.message, status, "", tag);
  out.add("Contact", phone_.contact());
  if (status == 200) {
    out.add("Content-Type", "application/sdp");
    out.body = sdp(phone_.config_.local);
  }
  return out;
}

void Calls::on_invite(const Incoming& incoming) {
  const SipMessage& request = incoming.message;
  Dialog* known = find(request.call_id());
  if (known || !request.tag("To").empty()) {  // a re-INVITE changes nothing here
    const bool alive = known && known->state == State::established;
    return phone_.transactions_.respond(incoming, alive ? accept(incoming, 200, {}) : SipMessage::response_to(request, 481, "", random_token()));
  }
  Dialog& dialog = dialogs_.emplace_back(phone_.env_.loop);
  dialog.call_id = request.call_id();
  dialog.remote = request.get("From");
  dialog.target = request.uri_of("Contact");
  dialog.routes = request.list("Record-Route");
  phone_.emit({{"event", "call_incoming"},
               {"from", request.uri_of("From")},
               {"call_id", dialog.call_id},
               {"transport", incoming.path.tcp ? "tcp" : "udp"},
               {"local", incoming.local.to_string()},
               {"remote", incoming.remote.to_string()},
               {"protected", incoming.path.set != kClear}});
  answering_.spawn(answer(incoming, dialog));
}

Task<void> Calls::answer(Incoming invite, Dialog& dialog) {
  const std::string tag = random_token();
  phone_.transactions_.respond(invite, accept(invite, 180, tag));
  co_await sleep_for(phone_.env_.loop, phone_.config_.answer_after);
  if (dialog.cancelled) {
    dialog.state = State::over;
    phone_.transactions_.respond(invite, SipMessage::response_to(invite.message, 487, "", tag));
    phone_.emit({{"event", "call_ended"}, {"from", invite.message.uri_of("From")}, {"call_id", dialog.call_id}, {"by", "cancel"}, {"ok", true}});
    co_return;
  }
  const SipMessage ok = accept(invite, 200, tag);
  dialog.local = ok.get("To");
  dialog.state = State::established;
  phone_.transactions_.respond(invite, ok);
  // RFC 3261 §13.3.1.4: the 200 is repeated until the ACK comes, on any transport.
  Duration interval = phone_.config_.t1;
  const auto give_up = Clock::now() + phone_.config_.timeout;
  while (Clock::now() < give_up) {
    co_await sleep_for(phone_.env_.loop, interval);
    if (dialog.acknowledged || dialog.state == State::over) break;
    phone_.transactions_.respond(invite, ok);
    interval = std::min(interval * 2, phone_.config_.t2);
  }
  if (!dialog.acknowledged && dialog.state != State::over) {
    phone_.emit({{"event", "call_ended"}, {"from", invite.message.uri_of("From")}, {"call_id", dialog.call_id}, {"by", "no-ack"}, {"ok", false}});
    co_return;
  }
  // A callee hangs up only when told to.
  if (dialog.state == State::over) co_return;
  const std::optional<std::string> why = co_await dialog.ended.take(Clock::now() + std::chrono::hours(24));
  if (!why || *why != "hang-up" || dialog.state == State::over) co_return;
  const Verdict end = co_await bye(dialog);
  dialog.state = State::over;
  phone_.emit({{"event", "call_ended"}, {"from", invite.message.uri_of("From")}, {"call_id", dialog.call_id}, {"by", "local"}, {"ok", end.ok}});
}

void Calls::on_stray_response(const SipMessage& response) {
  if (response.method() != "INVITE" || response.status() < 200 || response.status() >= 300) return;
  Dialog* dialog = find(response.call_id());
  if (dialog && dialog->ack) phone_.transactions_.send_ack(*dialog->ack, phone_.path(phone_.config_.message_over_tcp));
}

}  // namespace gmgate::peers
