#include "daemon/tls/certificates.h"

#include <ctime>

#include <fmt/format.h>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"

namespace gmgate::daemon {
namespace {

std::string day_of(TlsCertificates::SystemTime time) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
    std::tm parts{};
    char text[32] = "?";
    if (gmtime_r(&seconds, &parts)) std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
    return text;
}

}  // namespace

std::shared_ptr<const ktls::Context> TlsCertificates::add(std::string name, ktls::Context context,
                                                          std::chrono::days warn_ahead) {
    entries_.push_back({std::move(name), std::make_shared<ktls::Context>(std::move(context)), warn_ahead});
    tell(entries_.back());
    warn(entries_.back(), std::chrono::system_clock::now());
    return entries_.back().context;
}

void TlsCertificates::tell(const Entry& entry) {
    for (const auto& certificate : entry.context->certificates())
        log::notice("certificate", {{"for", entry.name},
                                    {"file", certificate.file},
                                    {"names", fmt::format("{}", fmt::join(certificate.names, ","))},
                                    {"key", certificate.key_type},
                                    {"ends", day_of(certificate.expires)}});
}

Result<void> TlsCertificates::reload() {
    std::string refused;
    for (const auto& entry : entries_) {
        auto fresh = *entry.context;
        if (const auto ok = fresh.reload(); !ok) {
            refused += fmt::format("{}{}: {}", refused.empty() ? "" : "; ", entry.name, ok.error().text);
            continue;
        }
        *entry.context = std::move(fresh);
        tell(entry);
    }
    warn(std::chrono::system_clock::now());
    if (!refused.empty()) return failure(Reaction::refused, std::move(refused));
    return {};
}

std::size_t TlsCertificates::warn(SystemTime now) const {
    std::size_t count = 0;
    for (const auto& entry : entries_) count += warn(entry, now);
    return count;
}

// Whatever fetches responses does so long before they end: a day is late.
std::size_t TlsCertificates::warn_of_response(const Entry& entry, const ktls::CertificateInfo& certificate,
                                              SystemTime now) {
    constexpr std::chrono::hours kLate{24};
    if (certificate.ocsp_file.empty() || certificate.ocsp_ends > now + kLate) return 0;
    log::warning("ocsp-response-expires",
                 {{"for", entry.name},
                  {"file", certificate.ocsp_file},
                  {certificate.ocsp_ends <= now ? "ended" : "ends", day_of(certificate.ocsp_ends)},
                  {"why", "then phones get none with the certificate; fetch another and send SIGHUP"}});
    return 1;
}

std::size_t TlsCertificates::warn(const Entry& entry, SystemTime now) const {
    std::size_t count = 0;
    for (const auto& certificate : entry.context->certificates()) {
        count += warn_of_response(entry, certificate, now);
        if (certificate.expires > now + entry.warn_ahead) continue;
        ++count;
        if (certificate.expires <= now) {
            log::error("certificate-expired",
                       {{"for", entry.name},
                        {"file", certificate.file},
                        {"ended", day_of(certificate.expires)},
                        {"why", "new TLS connections fail where phones check; renew it and send SIGHUP"}});
            continue;
        }
        const auto days = std::chrono::duration_cast<std::chrono::days>(certificate.expires - now).count();
        log::warning("certificate-expires", {{"for", entry.name},
                                             {"file", certificate.file},
                                             {"ends", day_of(certificate.expires)},
                                             {"days", days},
                                             {"why", "renew it and send SIGHUP"}});
    }
    warnings_ += count;
    return count;
}

Task<void> TlsCertificates::watch(std::chrono::milliseconds interval) {
    while (!stopped_) {
        asio::error_code error;
        timer_.expires_after(interval);
        co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
        if (stopped_ || error) co_return;
        warn(std::chrono::system_clock::now());
    }
}

}  // namespace gmgate::daemon
