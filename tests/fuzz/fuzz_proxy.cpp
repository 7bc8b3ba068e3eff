// Fuzz target: the whole proxy between a phone with a set of SAs and a core, on sockets of the loopback, both ways. Of
// the input the first octet says who begins; the text is what that one sends, and behind a line ==== what the other
// one answers. Readers that know nothing of sip/ see in what comes out the identity, the way and the protection that
// were checked, and it comes out where it should and nowhere else.
#define DOCTEST_CONFIG_IMPLEMENT
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/log.h"
#include "tests/fuzz/crude_reader.h"
#include "tests/fuzz/require.h"
#include "tests/support/own_network.h"
#include "tests/unit/daemon/proxy/network.h"

namespace {

using namespace gmgate;
using namespace gmgate::fuzz;
using daemon::test::ProxyNetwork;

constexpr const char* kIdentity = "sip:alice@home.example";
constexpr const char* kServiceRoute = "sip:orig@scscf.home.example;lr";

/// The assertions of what this shares with the unit tests; no test case is running here.
struct Assertions {
    Assertions() {
        context.setAsDefaultForAssertsOutOfTestCases();
        context.setAssertHandler([](const doctest::AssertData& data) {
            if (!data.m_failed) return;
            std::fprintf(stderr, "%s:%d: %s\n", data.m_file, data.m_line, data.m_expr);
            std::abort();
        });
        log::set_level(log::Level::error);
        test::enter_own_network();
    }
    doctest::Context context;
};

void replace_all(std::string& text, std::string_view what, const std::string& by) {
    for (auto at = text.find(what); at != text.npos; at = text.find(what, at + by.size()))
        text.replace(at, what.size(), by);
}

/// Lines of a request that its answer repeats, as the one who got it read them.
std::string same_lines(const CrudeMessage& request, bool has_to_tag) {
    std::string lines;
    for (const auto& [name, value] : request.fields)
        for (const char* same : {"via", "v", "from", "f", "call-id", "i", "cseq", "record-route"})
            if (name == same) lines += fmt::format("{}: {}\r\n", name, value);
    const auto to = request.all("to", "t");
    return lines + fmt::format("To: {}{}\r\n", to.empty() ? "" : to[0], has_to_tag ? "" : ";tag=answered");
}

/// No name of this list stands in it, whoever reads it.
void require_none(const CrudeMessage& seen, std::initializer_list<const char*> names, const char* what) {
    for (const char* name : names) require(!seen.has(name), what);
}

void require_no_sec_agree(const CrudeMessage& seen) {
    for (const char* name : {"require", "proxy-require"})
        for (const auto& value : seen.all(name))
            for (std::size_t at = 0; at <= value.size();) {
                const auto end = std::min(value.find(',', at), value.size());
                require(lowered(trimmed(value.substr(at, end - at))) != "sec-agree", "sec-agree ends at the gateway");
                at = end + 1;
            }
}

/// All readers find the same end of the same body.
void require_frame(const CrudeMessage& seen, const sip::Message& message) {
    require(seen.body && *seen.body == message.body(), "every reader finds the body where we found it");
    const auto length = seen.all("content-length", "l");
    require(length.size() == 1 && length[0] == std::to_string(message.body().size()),
            "one Content-Length, and it is the body's");
}

std::string start_of(const sip::Message& message) {
    return std::string(message.bytes().substr(0, message.bytes().find("\r\n")));
}

std::string uri_in(const sip::Message& message, sip::HeaderId id) {
    const auto address = sip::NameAddr::parse(message.value(id));
    return address ? std::string(address->uri) : "";
}

/// Everything of Route that stands in angle brackets.
std::vector<std::string> routes_of(const CrudeMessage& seen) {
    std::vector<std::string> uris;
    for (const auto& value : seen.all("route"))
        for (auto open = value.find('<'); open != value.npos; open = value.find('<', open + 1))
            uris.push_back(value.substr(open + 1, value.find('>', open) - open - 1));
    return uris;
}

class Play {
public:
    void run(unsigned mode, std::string text) {
        fill_in(text);
        std::string answer;
        if (const auto cut = text.find("\n====\n"); cut != text.npos) {
            answer = text.substr(cut + 6);
            text.erase(cut + 1);
        }
        const auto sent = sip::OwnedMessage::parse(text);
        if (!sent || !(*sent)->is_request() || (*sent)->method() == sip::Method::register_) return;
        is_from_phone_ = mode % 2 == 0;
        if (text.size() > 60000) return;
        if (is_from_phone_) network_.ue_client.send(text, network_.ps);
        else network_.core_peer.send(text, network_.core_side);
        settle();
        for (const auto& out : forwarded()) {
            check_request(**sent, out);
            reply(**sent, out, answer);
        }
    }

private:
    void fill_in(std::string& text) const {
        replace_all(text, "@PHONE@", network_.ue_server.endpoint().to_string());
        replace_all(text, "@CORE@", network_.core_peer.endpoint().to_string());
        replace_all(text, "@GATEWAY@", network_.core_side.to_string());
        replace_all(text, "@PORT@", network_.ps.to_string());
    }

    /// Runs what is ready until nothing is: on the loopback that is everything.
    void settle() {
        for (int quiet = 0; quiet < 3;) {
            network_.loop.io.restart();
            quiet = network_.loop.io.poll() == 0 ? quiet + 1 : 0;
        }
        const auto read = [](auto& peer, std::vector<std::string>& into) {
            while (auto bytes = peer.try_receive()) into.push_back(std::move(*bytes));
        };
        read(network_.core_peer, at_core_);
        read(network_.ue_server, at_phone_);
        read(network_.ue_client, beside_phone_);
        require(beside_phone_.empty(), "a phone gets everything at port_us");
    }

    /// Requests that came out at the other side; whoever sent it gets responses only.
    std::vector<std::string> forwarded() {
        auto& there = is_from_phone_ ? at_core_ : at_phone_;
        auto& here = is_from_phone_ ? at_phone_ : at_core_;
        for (const auto& text : here) require(text.starts_with("SIP/2.0 "), "who asks is not asked");
        std::vector<std::string> requests;
        for (auto& text : there) {
            require(!text.starts_with("SIP/2.0 "), "nobody answers at the other side");
            requests.push_back(std::move(text));
        }
        at_core_.clear();
        at_phone_.clear();
        return requests;
    }

    void check_request(const sip::Message& sent, const std::string& out) const {
        for (const CrudeReader& reader : kCrudeReaders) {
            const auto seen = CrudeMessage::read(out, reader);
            require(seen.start_line == start_of(sent), "the request line stays");
            require_frame(seen, sent);
            const auto vias = seen.all("via", "v");
            const auto& ours = is_from_phone_ ? network_.core_side : network_.ps;
            require(
                !vias.empty() && vias[0].starts_with(fmt::format("SIP/2.0/UDP {};branch=z9hG4bK", ours.to_string())),
                "our Via is on top");
            for (const auto& route : routes_of(seen))
                require(route.find(network_.core_side.to_string()) == route.npos, "no Route comes back to us");
            if (is_from_phone_) check_from_phone(sent, seen, reader);
        }
    }

    void check_from_phone(const sip::Message& sent, const CrudeMessage& seen, const CrudeReader& reader) const {
        require_none(seen,
                     {"security-client", "security-verify", "security-server", "p-served-user", "p-preferred-identity",
                      "p-charging-function-addresses"},
                     "what only the network says does not come from a phone");
        require_no_sec_agree(seen);
        const auto asserted = seen.all("p-asserted-identity");
        require(asserted.size() == 1 && crude_address(asserted[0], reader) == kIdentity,
                "one identity is asserted, and it is this phone's");
        for (const auto& [id, name, compact] :
             {std::tuple{sip::HeaderId::to, "to", "t"}, {sip::HeaderId::from, "from", "f"}}) {
            const auto values = seen.all(name, compact);
            require(values.size() == 1 && crude_address(values[0], reader) == uri_in(sent, id),
                    "the address in To and From is the checked one");
        }
        require(seen.all("call-id", "i").size() == 1 && seen.all("cseq").size() == 1, "one Call-ID, one CSeq");
        const auto hops = seen.all("max-forwards");
        require(hops.size() == 1, "one Max-Forwards");
        for (const auto& name : {"authorization", "proxy-authorization"})
            for (const auto& value : seen.all(name))
                require(crude_parameters(value, "integrity-protected", ',', reader).empty(),
                        "nothing but a REGISTER is integrity-protected");
        const auto is_urgent = lowered(seen.start_line).find("urn:service:sos") != std::string::npos;
        const auto routes = routes_of(seen);
        const auto is_service_route = [](const std::string& one) { return lowered(one) == kServiceRoute; };
        require(is_urgent ? routes.empty() : routes.size() == 1 && std::ranges::all_of(routes, is_service_route),
                "the way is the Service-Route");
    }

    void reply(const sip::Message& sent, const std::string& out, std::string answer) {
        if (answer.empty()) return;
        const auto request = CrudeMessage::read(out, {});
        replace_all(answer, "@SAME@\r\n", same_lines(request, out.find("tag=", out.find("\r\nTo:")) == out.npos));
        const auto parsed = sip::OwnedMessage::parse(answer);
        if (!parsed || (*parsed)->is_request() || answer.size() > 60000) return;
        if (is_from_phone_) network_.core_peer.send(answer, network_.core_side);
        else network_.ue_server.send(answer, network_.pc);
        settle();
        auto& there = is_from_phone_ ? at_phone_ : at_core_;
        auto& here = is_from_phone_ ? at_core_ : at_phone_;
        for (const auto& text : here)
            require(text.starts_with("ACK ") || text.starts_with("CANCEL "), "an answer is not answered");
        for (const auto& text : there) check_response(sent, **parsed, text);
        at_core_.clear();
        at_phone_.clear();
    }

    void check_response(const sip::Message& sent, const sip::Message& answer, const std::string& out) const {
        if (!out.starts_with("SIP/2.0 ") || out.starts_with("SIP/2.0 100")) return;
        const bool is_softened = answer.status() == 503;
        for (const CrudeReader& reader : kCrudeReaders) {
            const auto seen = CrudeMessage::read(out, reader);
            if (!is_softened) require(seen.start_line == start_of(answer), "the status line stays");
            require_frame(seen, answer);
            require(!seen.all("via", "v").empty(), "a Via is left");
            for (const auto& via : seen.all("via", "v"))
                require(via.find(is_from_phone_ ? network_.core_side.to_string() + ";branch"
                                                : network_.ps.to_string() + ";branch") == via.npos,
                        "our Via is gone");
            if (is_from_phone_) {
                require_none(seen, {"p-charging-vector", "p-charging-function-addresses", "security-server"},
                             "what the network says to itself does not reach a phone");
                continue;
            }
            require_none(seen, {"p-preferred-identity", "p-served-user", "p-charging-function-addresses"},
                         "what only the network says does not come from a phone");
            for (const auto& value : seen.all("p-asserted-identity"))
                require(crude_address(value, reader) == kIdentity, "a phone answers as itself");
        }
        (void)sent;
    }

    ProxyNetwork network_;
    bool is_from_phone_ = true;
    std::vector<std::string> at_core_, at_phone_, beside_phone_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    static const Assertions assertions;
    if (size < 2) return 0;
    Play().run(data[0], std::string(text_of(data + 1, size - 1)));
    return 0;
}
