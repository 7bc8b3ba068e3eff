// Calls of a phone: INVITE, 180, 200, ACK, BYE and CANCEL; a callee answers by itself. No media: the SDP is a formality.
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
  void on_request(const Incoming& incoming);
  /// A response that no transaction waits for: a repeated 2xx to an INVITE gets its ACK again (RFC 3261 §13.2.2.4).
  void on_stray_response(const SipMessage& response);

 private:
  enum class State { ringing, established, over };
  struct Dialog {
    State state = State::ringing;
    bool outgoing = false;
    std::string call_id;
    std::string local;   ///< From of our requests
    std::string remote;  ///< To of our requests
    std::string target;  ///< remote Contact
    std::vector<std::string> routes;
    std::uint32_t cseq = 1;
    std::optional<SipMessage> ack;  ///< as sent, for repeated 2xx
    bool acknowledged = false;
    bool cancelled = false;
    Mailbox<std::string> ended;  ///< why the talk ends
    explicit Dialog(Loop& loop) : ended(loop) {}
  };
  [[nodiscard]] Dialog* find(const std::string& call_id);
  Task<void> answer(Incoming invite, Dialog& dialog);
  Task<Verdict> bye(Dialog& dialog);
  void on_invite(const Incoming& incoming);
  void on_bye(const Incoming& incoming, Dialog* dialog);
  [[nodiscard]] SipMessage in_dialog(std::string_view method, Dialog& dialog, std::uint32_t cseq);
  [[nodiscard]] SipMessage accept(const Incoming& invite, int status, const std::string& tag) const;

  Phone& phone_;
  std::list<Dialog> dialogs_;
  Tasks answering_;
};

}  // namespace gmgate::peers
