#include "ktls/context.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/secret.h"
#include "ktls/context_state.h"
#include "ktls/freer.h"
#include "ktls/tickets.h"
#include "ktls/tls_rules.h"

namespace gmgate::ktls {
namespace {

using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
struct ChainFree {
    void operator()(STACK_OF(X509) * chain) const noexcept { sk_X509_pop_free(chain, X509_free); }
};
using ChainPtr = std::unique_ptr<STACK_OF(X509), ChainFree>;
struct NamesFree {
    void operator()(GENERAL_NAMES* names) const noexcept { GENERAL_NAMES_free(names); }
};

struct Loaded {
    CertificateInfo info;
    X509Ptr leaf;
    ChainPtr chain;
    KeyPtr key;
};

std::unexpected<Error> refuse(std::string text) { return failure(Reaction::refused, std::move(text)); }

/// The file's bytes in a BIO that OpenSSL wipes when it is freed.
Result<BioPtr> open_pem(const std::string& path, const std::string& what) {
    BioPtr file(BIO_new_file(path.c_str(), "r"));
    if (!file) {
        const int code = errno;
        ERR_clear_error();
        return system_failure(Reaction::refused, "cannot read the " + what + " " + path, code);
    }
    return file;
}

int no_passphrase(char*, int, int, void*) { return -1; }  // never ask on the terminal

std::string lower(std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : static_cast<char>(c);
    });
    return text;
}

// RFC 5922 §7.1: where a subjectAltName exists the CN is not used.
std::vector<std::string> names_of(X509* certificate) {
    std::vector<std::string> names;
    const std::unique_ptr<GENERAL_NAMES, NamesFree> all(
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    for (int i = 0; all && i < sk_GENERAL_NAME_num(all.get()); ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(all.get(), i);
        if (name->type != GEN_DNS) continue;
        const auto* bytes = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
        names.push_back(lower(std::string(bytes, static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)))));
    }
    char common_name[256];
    if (!all && X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common_name,
                                          sizeof common_name) > 0)
        names.push_back(lower(common_name));
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());
    return names;
}

std::string day_of(const ASN1_TIME* time) {
    std::tm parts{};
    char text[32] = "?";
    if (ASN1_TIME_to_tm(time, &parts) == 1) std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
    return text;
}

Result<Loaded> load(const CertificateFiles& files) {
    Loaded out;
    auto chain_file = open_pem(files.chain, "certificate");
    if (!chain_file) return std::unexpected(std::move(chain_file.error()));
    out.leaf.reset(PEM_read_bio_X509_AUX(chain_file->get(), nullptr, no_passphrase, nullptr));
    if (!out.leaf)
        return refuse(files.chain + " holds no certificate (" + take_openssl_error() +
                      "): it must be PEM, the server's certificate first, then its intermediates");
    out.chain.reset(sk_X509_new_null());
    while (X509* next = PEM_read_bio_X509(chain_file->get(), nullptr, no_passphrase, nullptr))
        sk_X509_push(out.chain.get(), next);
    ERR_clear_error();  // the end of the file is an error to PEM_read

    auto key_file = open_pem(files.key, "private key");
    if (!key_file) return std::unexpected(std::move(key_file.error()));
    out.key.reset(PEM_read_bio_PrivateKey(key_file->get(), nullptr, no_passphrase, nullptr));
    if (!out.key)
        return refuse(files.key + " holds no private key (" + take_openssl_error() +
                      "): it must be PEM without a passphrase");

    if (X509_check_private_key(out.leaf.get(), out.key.get()) != 1) {
        ERR_clear_error();
        return refuse("the private key " + files.key + " does not belong to the certificate " + files.chain +
                      ": name the files of one pair");
    }
    if (X509_cmp_current_time(X509_get0_notAfter(out.leaf.get())) <= 0)
        return refuse("the certificate " + files.chain + " expired on " + day_of(X509_get0_notAfter(out.leaf.get())) +
                      ": renew it");
    if (X509_cmp_current_time(X509_get0_notBefore(out.leaf.get())) > 0)
        return refuse("the certificate " + files.chain + " is not valid before " +
                      day_of(X509_get0_notBefore(out.leaf.get())) + ": check the clock of this machine");
    std::tm end{};
    ASN1_TIME_to_tm(X509_get0_notAfter(out.leaf.get()), &end);
    out.info = {
        files.chain, names_of(out.leaf.get()),
        std::string(EVP_PKEY_get0_type_name(out.key.get())) + " " + std::to_string(EVP_PKEY_get_bits(out.key.get())),
        std::chrono::system_clock::from_time_t(timegm(&end))};
    if (out.info.names.empty())
        return refuse("the certificate " + files.chain +
                      " names no host: it needs a DNS subjectAltName with the name that phones connect to");
    return out;
}

Result<void> trust(SSL_CTX* context, const std::string& ca_file) {
    const bool trusted = ca_file.empty() ? SSL_CTX_set_default_verify_paths(context) == 1
                                         : SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) == 1;
    if (!trusted)
        return refuse("cannot load the trusted certificates " + ca_file + ": " + take_openssl_error() +
                      "; it must be a readable PEM file");
    return {};
}

Result<SslContextPtr> make_server_context(const ServerOptions& options) {
    auto context = make_context(TLS_server_method(), {.allow_tls12 = options.allow_tls12,
                                                      .allow_tls13 = options.allow_tls13,
                                                      .ciphers = options.ciphers,
                                                      .groups = options.groups});
    if (!context) return context;
    auto* const ctx = context->get();
    if (!options.demand_client_certificate) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, nullptr);  // TS 33.203 §O.2.1: no client certificate is requested
    } else {
        if (auto trusted = trust(ctx, options.client_ca_file); !trusted)
            return std::unexpected(std::move(trusted.error()));
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        SSL_CTX_set_session_id_context(ctx, reinterpret_cast<const unsigned char*>("core"),
                                       4);  // also of phones that show one; resumption with certificates wants one
    }
    SSL_CTX_set_max_early_data(ctx, 0);  // RFC 8446 §8: a REGISTER can be replayed
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_timeout(ctx, options.session_lifetime.count());
    return context;
}

// RFC 6066 §3. Without SNI, and for a name that nobody has, the first identity serves.
int server_name_callback(SSL* ssl, int* alert, void* argument) {
    const auto& state = *static_cast<const Context::State*>(argument);
    const char* wanted = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (wanted == nullptr) return SSL_TLSEXT_ERR_OK;
    const auto name = lower(wanted);
    for (const auto& identity : state.identities) {
        const bool fits = std::ranges::any_of(identity.names, [&](const std::string& own) {
            if (own == name) return true;
            const auto dot = name.find('.');  // RFC 6125 §6.4.3: a wildcard stands for one label
            return own.starts_with("*.") && dot != std::string::npos && dot > 0 &&
                   std::string_view(own).substr(1) == std::string_view(name).substr(dot);
        });
        if (!fits) continue;
        if (&identity != &state.identities.front()) SSL_set_SSL_CTX(ssl, identity.context.get());
        return SSL_TLSEXT_ERR_OK;
    }
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return state.strict_server_name ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_OK;
}

Result<std::shared_ptr<const Context::State>> load_server(const ServerOptions& options,
                                                          const std::shared_ptr<TicketKeys>& tickets) {
    if (options.certificates.empty())
        return refuse("no certificate is configured: a TLS server needs a certificate and its key");
    auto state = std::make_shared<Context::State>();
    state->tickets = tickets;
    state->strict_server_name = options.strict_server_name;
    state->verify = options.demand_client_certificate;
    state->peer_names = options.client_names;
    for (const auto& files : options.certificates) {
        auto loaded = load(files);
        if (!loaded) return std::unexpected(std::move(loaded.error()));
        auto identity = std::ranges::find(state->identities, loaded->info.names, &Identity::names);
        if (identity == state->identities.end()) {
            auto context = make_server_context(options);
            if (!context) return std::unexpected(std::move(context.error()));
            tickets->attach(context->get());
            state->identities.push_back({loaded->info.names, std::move(*context)});
            identity = std::prev(state->identities.end());
        }
        // The last argument: a second certificate of the same names and key type is a mistake, not an update.
        if (SSL_CTX_use_cert_and_key(identity->context.get(), loaded->leaf.get(), loaded->key.get(),
                                     loaded->chain.get(), 0) != 1)
            return refuse("the certificate " + files.chain + " cannot be used: " + take_openssl_error() +
                          " (one certificate per key type and set of names, RSA of 2048 bits or more)");
        if (!files.ocsp.empty()) {
            auto staple = load_staple(files.ocsp, loaded->leaf.get(), loaded->chain.get());
            if (!staple) return std::unexpected(std::move(staple.error()));
            loaded->info.ocsp_file = files.ocsp;
            loaded->info.ocsp_ends = staple->ends;
            state->staples.push_back(std::move(*staple));
        }
        state->certificates.push_back(std::move(loaded->info));
    }
    if (!state->staples.empty())
        for (const auto& identity : state->identities) show_staples(identity.context.get(), state->staples);
    auto* const first = state->identities.front().context.get();
    SSL_CTX_set_tlsext_servername_callback(first, server_name_callback);
    SSL_CTX_set_tlsext_servername_arg(first, state.get());  // every handshake holds the state
    return state;
}

Result<std::shared_ptr<const Context::State>> load_client(const ClientOptions& options) {
    auto ssl =
        make_context(TLS_client_method(), {.allow_tls12 = options.allow_tls12, .allow_tls13 = options.allow_tls13});
    if (!ssl) return std::unexpected(std::move(ssl.error()));
    if (options.verify)
        if (auto trusted = trust(ssl->get(), options.ca_file); !trusted)
            return std::unexpected(std::move(trusted.error()));
    SSL_CTX_set_verify(ssl->get(), options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
    auto state = std::make_shared<Context::State>();
    for (const auto& files : options.certificates) {
        auto loaded = load(files);
        if (!loaded) return std::unexpected(std::move(loaded.error()));
        if (SSL_CTX_use_cert_and_key(ssl->get(), loaded->leaf.get(), loaded->key.get(), loaded->chain.get(), 0) != 1)
            return refuse("the certificate " + files.chain + " cannot be used: " + take_openssl_error());
        state->certificates.push_back(std::move(loaded->info));
    }
    state->verify = options.verify;
    if (!options.server_name.empty()) state->peer_names = {options.server_name};
    state->identities.push_back({{}, std::move(*ssl)});
    return state;
}

}  // namespace

void SslFree::operator()(ssl_st* ssl) const noexcept { SSL_free(ssl); }
void SslContextFree::operator()(ssl_ctx_st* context) const noexcept { SSL_CTX_free(context); }

std::string take_openssl_error() {
    const auto code = ERR_peek_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    ERR_clear_error();
    return reason == nullptr ? "no reason given" : reason;
}

Result<Context> Context::server(ServerOptions options) {
    Context context;
    context.tickets_ = std::make_shared<TicketKeys>(options.session_lifetime);
    context.options_ = std::move(options);
    if (auto loaded = context.reload(); !loaded) return std::unexpected(std::move(loaded.error()));
    return context;
}

Result<Context> Context::client(ClientOptions options) {
    Context context;
    context.options_ = std::move(options);
    if (auto loaded = context.reload(); !loaded) return std::unexpected(std::move(loaded.error()));
    return context;
}

Result<void> Context::reload() {
    const auto* const server = std::get_if<ServerOptions>(&options_);
    std::vector<TicketKeys::Key> shared;
    if (server != nullptr && !server->ticket_key_file.empty()) {
        auto keys = TicketKeys::read_file(server->ticket_key_file);
        if (!keys) return std::unexpected(std::move(keys.error()));
        shared = std::move(*keys);
    }
    auto state = server ? load_server(*server, tickets_) : load_client(std::get<ClientOptions>(options_));
    if (!state) return std::unexpected(std::move(state.error()));
    if (!shared.empty()) tickets_->share(std::move(shared));
    state_ = std::move(*state);
    return {};
}

std::chrono::system_clock::time_point Context::expires() const {
    auto first = std::chrono::system_clock::time_point::max();
    for (const auto& certificate : state_->certificates) first = std::min(first, certificate.expires);
    return first;
}

bool Context::expires_within(std::chrono::seconds ahead) const {
    return expires() <= std::chrono::system_clock::now() + ahead;
}
const std::vector<CertificateInfo>& Context::certificates() const { return state_->certificates; }

}  // namespace gmgate::ktls
