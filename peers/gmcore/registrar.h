// The S-CSCF's registrar: challenges, verifies, binds. TS 24.229 §5.4.1, TS 33.203 §6.1.
#pragma once

#include "../common/message_log.h"
#include "../common/sip_message.h"
#include "behaviour.h"
#include "users.h"

namespace gmgate::peers {

class Registrar {
public:
    Registrar(UserStore& users, MessageLog& log, std::string service_route)
        : users_(users), log_(log), service_route_(std::move(service_route)) {}
    /// The answer to a REGISTER; nothing when the behaviour says to stay silent. Writes one "register" event to the
    /// log.
    [[nodiscard]] std::optional<SipMessage> handle(const SipMessage& request, const Behaviour& behaviour);

private:
    /// What the REGISTER says about itself, decoded once.
    struct Facts {
        const SipMessage& request;
        const Behaviour& behaviour;
        User* user = nullptr;
        AuthHeader authorization;
        bool has_authorization = false;
        std::string protection;  ///< integrity-protected, empty when absent
        std::string outcome;
        std::string why;
    };
    [[nodiscard]] SipMessage decide(Facts& facts);
    [[nodiscard]] SipMessage challenge(Facts& facts);
    [[nodiscard]] SipMessage resynchronise(Facts& facts, const std::string& auts_text);
    [[nodiscard]] SipMessage verify(Facts& facts, const Challenge& challenge);
    [[nodiscard]] SipMessage accept(Facts& facts);
    [[nodiscard]] SipMessage refuse(Facts& facts, int status, std::string why);
    [[nodiscard]] bool response_is_right(const Facts& facts, const Challenge& challenge) const;
    void write_event(const Facts& facts, int status);

    UserStore& users_;
    MessageLog& log_;
    std::string service_route_;
};

}  // namespace gmgate::peers
