// What the tests of `gmctl configure` share: a file to begin with, and a session over it.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include <fmt/format.h>

#include "gmctl/configure/session.h"

namespace gmgate::daemon::configure {

/// A small valid file with the realm of the feature text, comments in every place, and a TLS port, so that all four
/// preferences are possible.
inline const std::string kRealm01 = R"(# the edge in rack 7
log-level = "info"      # as told by operations

[core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"           # I-CSCF
visited-network-id = "visited.example"

[[ims-aka-profile]]
name = "volte"
protected-server-port = [6100,       # first
                         6101]       # second
start-protected-client-port = 6200
end-protected-client-port = 6203

[[tls-profile]]
name = "access-tls"
end-entity-cert = "/etc/gmgate/cert.pem"
private-key = "/etc/gmgate/key.pem"

# The access side.
[[sip-interface]]
realm-id = "realm01"
# sec-agree-feature = "disabled"     # the default
# no-security-client = "forward"     # forward or reject
#                                    # (421)

[[sip-interface.sip-ports]]
address = "172.172.30.31"
ims-aka-profile = "volte"            # protected ports

[[sip-interface.sip-ports]]
address = "172.172.30.31"
port = 5061
transport-protocol = "TLS"
tls-profile = "access-tls"
# end of realm01
)";

inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
    const auto at = text.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, "the text has no ", std::string(from));
    return text.replace(at, from.size(), to);
}

/// A session whose file is a string.
struct Shell {
    explicit Shell(std::string text = kRealm01) : file(std::move(text)) {
        auto document = Document::parse(file, "gmgate.toml");
        REQUIRE_MESSAGE(document.has_value(), document.error().text);
        session = std::make_unique<Session>(ask_parser(sample_text()), std::move(*document), "gmgate.toml", "gmgate",
                                            [this](const std::string& now) -> Result<void> {
                                                if (is_disk_full) return failure(Reaction::broken, "the disk is full");
                                                file = now;
                                                return {};
                                            });
    }
    /// Types each line and gives all that was printed.
    std::string type(std::initializer_list<std::string_view> lines) {
        std::string out;
        for (const auto line : lines) out += session->execute(line);
        return out;
    }
    std::string file;
    bool is_disk_full = false;
    std::unique_ptr<Session> session;
};

}  // namespace gmgate::daemon::configure
