// Inside of ktls: what a Context has loaded, and the OpenSSL objects' owners.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ktls/context.h"
#include "ktls/staples.h"

namespace gmgate::ktls {

struct SslFree {
    void operator()(ssl_st* ssl) const noexcept;
};
struct SslContextFree {
    void operator()(ssl_ctx_st* context) const noexcept;
};
using SslPtr = std::unique_ptr<ssl_st, SslFree>;
using SslContextPtr = std::unique_ptr<ssl_ctx_st, SslContextFree>;

/// Certificates of one set of names.
struct Identity {
    std::vector<std::string> names;
    SslContextPtr context;
};

struct Context::State {
    std::vector<Identity> identities;  ///< the first one is the default; never empty
    std::vector<CertificateInfo> certificates;
    std::vector<Staple> staples;
    std::shared_ptr<TicketKeys>
        tickets;  ///< shared: OpenSSL's callbacks use them for as long as a handshake of any generation runs
    bool strict_server_name = false;
    bool verify = false;  ///< the peer must show a certificate of one of peer_names
    std::vector<std::string>
        peer_names;  ///< SIP domains, one of which it must be for; empty: any that the trusted ones signed
};

/// Takes OpenSSL's error queue of this thread: its first reason as text, and leaves the queue empty.
std::string take_openssl_error();

}  // namespace gmgate::ktls
