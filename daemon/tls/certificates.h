// The certificates in use: read again on SIGHUP, each profile by itself, and warned about before they end.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "base/error.h"
#include "base/task.h"
#include "ktls/context.h"

namespace gmgate::daemon {

class TlsCertificates {
public:
    using SystemTime = std::chrono::system_clock::time_point;

    explicit TlsCertificates(asio::any_io_executor executor) : timer_(std::move(executor)) {}

    /// Takes a context under its name ("tls-profile access"), says what its certificates are and warns of those that
    /// end within `warn_ahead`. What comes back always is the context in use; begin each handshake with a copy of it.
    std::shared_ptr<const ktls::Context> add(std::string name, ktls::Context context, std::chrono::days warn_ahead);

    /// Reads every file again. The files of one context are all good and taken into use, for the handshakes that begin
    /// from now on, or nothing of it changes; another one is not held up by that. The Error names each that did not
    /// change, and why. Connections are not touched.
    Result<void> reload();

    /// Logs a warning for each certificate that ends within its time and each OCSP response that ends within a day, an
    /// error for each certificate that has ended; returns how many those were.
    std::size_t warn(SystemTime now) const;
    /// warn() again and again, daily by default; ends with stop().
    Task<void> watch(std::chrono::milliseconds interval = std::chrono::hours{24});
    void stop() {
        stopped_ = true;
        timer_.cancel();
    }
    /// Of each name, when the first of its certificates ends.
    std::vector<std::pair<std::string, SystemTime>> ends() const {
        std::vector<std::pair<std::string, SystemTime>> all;
        for (const auto& entry : entries_) all.emplace_back(entry.name, entry.context->expires());
        return all;
    }
    bool empty() const { return entries_.empty(); }
    std::uint64_t warnings() const { return warnings_; }

private:
    struct Entry {
        std::string name;
        std::shared_ptr<ktls::Context> context;  // shared with listeners and connectors, which see a reload through it
        std::chrono::days warn_ahead;
    };
    static void tell(const Entry& entry);
    std::size_t warn(const Entry& entry, SystemTime now) const;
    static std::size_t warn_of_response(const Entry& entry, const ktls::CertificateInfo& certificate, SystemTime now);

    asio::steady_timer timer_;
    bool stopped_ = false;
    std::vector<Entry> entries_;
    mutable std::uint64_t warnings_ = 0;
};

}  // namespace gmgate::daemon
