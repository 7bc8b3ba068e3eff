// Fuzz target: a request of a phone through the rules that are between its socket and the core. What is written is read
// by readers that know nothing of sip/: they see the identity, the way and the protection that were checked, or the
// request was refused.
#include <string>

#include <fmt/format.h>

#include "daemon/rules/header_rules.h"
#include "daemon/rules/identity.h"
#include "daemon/rules/request_syntax.h"
#include "tests/fuzz/crude_reader.h"
#include "tests/fuzz/require.h"

namespace {

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::fuzz;
using sip::HeaderId;

constexpr const char* kPath = "sip:token@10.0.0.1;lr";
constexpr const char* kVia = "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKours";

sip::Flow phone_flow() {
    sip::Flow flow;
    flow.local = *Endpoint::parse("192.0.2.1:6100");
    flow.remote = *Endpoint::parse("198.51.100.7:5062");
    return flow;
}

std::string uri_in(const sip::Message& request, HeaderId id) {
    const auto address = sip::NameAddr::parse(request.value(id));
    return address ? std::string(address->uri) : "";
}

/// Holds for every request that goes on.
void check_frame(const CrudeMessage& seen, const sip::Message& request, const CrudeReader& reader) {
    require(seen.body.has_value() && *seen.body == request.body(), "every reader finds the body where we found it");
    const auto length = seen.all("content-length", "l");
    require(length.size() == 1 && length[0] == std::to_string(request.body().size()),
            "one Content-Length, and it is the body's");
    require(seen.start_line.starts_with(std::string(request.method_name()) + ' '), "the method stays");
    for (const auto& [id, name, compact] : {std::tuple{HeaderId::to, "to", "t"}, {HeaderId::from, "from", "f"}}) {
        const auto values = seen.all(name, compact);
        require(values.size() == 1, "one To and one From");
        require(crude_address(values[0], reader) == uri_in(request, id),
                "the address in To and From is the checked one");
    }
    require(seen.all("call-id", "i").size() == 1 && seen.all("cseq").size() == 1, "one Call-ID, one CSeq");
    const auto hops = seen.all("max-forwards");
    require(hops.size() == 1, "one Max-Forwards");
    const auto vias = seen.all("via", "v");
    require(!vias.empty() && vias[0] == kVia, "our Via is on top");
    for (const auto* gone :
         {"security-client", "security-verify", "security-server", "p-served-user", "p-charging-function-addresses"})
        require(!seen.has(gone), "what is ours alone to say does not come from a phone");
    for (const auto* name : {"require", "proxy-require"})
        for (const auto& value : seen.all(name))
            for (std::size_t at = 0; at <= value.size();) {
                const auto end = std::min(value.find(',', at), value.size());
                require(lowered(trimmed(value.substr(at, end - at))) != "sec-agree", "sec-agree ends here");
                at = end + 1;
            }
}

void check_credentials(const CrudeMessage& seen, const sip::RequestCredentials& checked, const CrudeReader& reader) {
    const auto values = seen.all("authorization");
    require(values.size() == (checked.authorization.kind() == sip::Credentials::Kind::none ? 0U : 1U),
            "as many Authorization fields as were checked");
    if (!checked.authorization.is_digest()) return;
    const auto users = crude_parameters(values[0], "username", ',', reader);
    const auto marks = crude_parameters(values[0], "integrity-protected", ',', reader);
    require(users.size() <= 1 && (users.empty() ? "" : users[0]) == checked.authorization.username(),
            "the user name that every reader sees is the checked one");
    require(marks.size() == 1 && marks[0] == "yes", "integrity-protected is ours, once");
    for (const auto& proxy : seen.all("proxy-authorization"))
        require(crude_parameters(proxy, "integrity-protected", ',', reader).empty(), "… and stands there alone");
}

void pass_register(const sip::Message& request, const sip::RequestCredentials& credentials) {
    RegisterToCore rules;
    rules.received = phone_flow();
    rules.via_host = "10.0.0.1:5060";
    rules.branch = "z9hG4bKours";
    rules.path_uri = kPath;
    rules.credentials = credentials;
    rules.integrity_protected = "yes";
    const auto text = register_to_core(request, rules);
    if (!text) return;
    for (const CrudeReader& reader : kCrudeReaders) {
        const auto seen = CrudeMessage::read(*text, reader);
        check_frame(seen, request, reader);
        check_credentials(seen, credentials, reader);
        require(!seen.has("route"), "nobody but us chooses the way of a REGISTER");
        require(seen.all("path") == std::vector{fmt::format("<{}>", kPath)}, "one Path, and it is ours");
        require(!seen.has("p-asserted-identity"), "a REGISTER asserts nothing");
    }
}

/// As the proxy writes any other request of a phone with these identities.
void pass_request(const sip::Message& request) {
    const std::vector<Impu> registered{Impu{"sip:alice@home.example"}, Impu{"tel:+491"}};
    sip::Edit edit(request);
    if (!decrement_max_forwards(edit, request)) return;
    mark_received(edit, request, phone_flow());
    push_via(edit, sip::Transport::udp, "10.0.0.1:5060", "z9hG4bKours");
    strip_untrusted(edit, request);
    strip_sec_agree(edit, request);
    assert_identity(edit, request, registered);
    const auto wanted = asserted_identity(request, registered);
    const std::string text = edit.to_string();
    for (const CrudeReader& reader : kCrudeReaders) {
        const auto seen = CrudeMessage::read(text, reader);
        check_frame(seen, request, reader);
        const auto asserted = seen.all("p-asserted-identity");
        require(asserted.size() == 1 && wanted && crude_address(asserted[0], reader) == *wanted,
                "one identity is asserted, and it is a registered one");
        require(*wanted == registered[0].value || *wanted == registered[1].value, "… of this phone");
        require(!seen.has("p-preferred-identity"), "a preferred identity ends here");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    const auto parsed = sip::Message::parse(text_of(data, size));
    if (!parsed || !parsed->is_request()) return 0;
    const auto& request = *parsed;
    const auto credentials = sip::RequestCredentials::read(request);
    if (check_syntax(request) || check_unambiguous(request, credentials)) return 0;
    if (request.method() == sip::Method::register_) pass_register(request, credentials);
    else if (request.method() != sip::Method::ack && request.method() != sip::Method::cancel) pass_request(request);
    return 0;
}
