// What an operator can ask and order over the control socket: each command reads the parts of the running gateway and
// answers with JSON. gmctl shows it. The commands stand in commands_*.cpp by subject.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "daemon/config/access.h"
#include "daemon/config/config.h"
#include "daemon/config/operator_state.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/observe/message_trace.h"
#include "daemon/observe/recorder.h"
#include "daemon/observe/trace.h"
#include "daemon/operate/control_server.h"
#include "daemon/operate/evidence.h"
#include "daemon/operate/packet_tap.h"
#include "daemon/operate/registration_statistics.h"
#include "daemon/registrations/kernel_watch.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/table.h"
#include "ktls/types.h"
#include "sip/transaction/transactions.h"
#include "sip/transport/transport.h"
#include "xfrm/kernel.h"

namespace gmgate::daemon {

/// What the commands work with; all outlive it.
struct OperateParts {
    asio::any_io_executor executor;
    const Config& config;
    const AccessMap& accesses;
    Table& table;
    SaSets& sets;
    KernelWatch& kernel_watch;
    xfrm::Kernel& kernel;
    sip::Transports& transports;
    sip::Transactions& transactions;
    Trace& trace;
    Counters& counters;
    const Clock& clock;
    OperatorState& operating;
    const PacketTap& tap;
    MessageTrace& messages;
    std::function<const ktls::Counters*()> tls_counters;  ///< null result: no TLS is configured
    CoreLink& core;
    const FlightRecorder& recorder;
};

class Operations {
public:
    explicit Operations(OperateParts parts);

    /// Opens the control socket; nothing happens when none is configured.
    Result<void> open(bool replace = false);
    void close() { server_.close(); }
    /// One of the five words; in force from now on.
    void set_log_level(const std::string& level);
    /// `cluster`: what this node is and does in its cluster; without it there is no such command's answer.
    void add_cluster(std::function<nlohmann::json()> status);
    /// What `reload` does; main owns the configuration and says.
    void set_reload(std::function<Result<nlohmann::json>()> reload) { reload_ = std::move(reload); }

    /// The last reload: when, and whether its file was good and its certificates were read.
    struct Reloaded {
        std::chrono::system_clock::time_point at;
        bool worked = false;
    };
    /// A reload was done, by whatever way; `worked`: with everything that belongs to it.
    void note_reload(bool worked) { reloaded_ = Reloaded{p_.clock.wall(), worked}; }
    /// Nullopt: there was none yet.
    const std::optional<Reloaded>& reloaded() const { return reloaded_; }
    /// A set of SAs ended without an answer of its phone.
    void unanswered(SetNumber set, const xfrm::SetParameters& parameters);
    const RegistrationStatistics& statistics() const { return statistics_; }

private:
    using Json = nlohmann::json;

    // ---- commands_state.cpp
    void add_state_commands();
    Task<Result<Json>> status() const;
    Task<Result<Json>> registrations(Json arguments);
    Task<Result<Json>> follow(const Json& arguments, ControlClient& client);
    Task<Result<Json>> show(Json arguments);
    Json row_of(const Registration& registration) const;
    Task<Json> details_of(ContactKey key);
    Task<Json> set_details(SetNumber number);

    // ---- commands_admin.cpp
    void add_admin_commands();
    Task<Result<Json>> deregister(Json arguments);
    Result<Json> drain(const Json& arguments);
    Result<Json> log_level(const Json& arguments);

    // ---- commands_statistics.cpp
    void add_statistics_commands();
    // ---- commands_core.cpp
    void add_core_commands();
    Task<Result<Json>> core();
    Task<Result<Json>> core_disable(Json arguments);
    Result<Json> core_enable(const Json& arguments);
    Json sa_stats();
    Json registration_numbers();

    // ---- commands_kernel.cpp
    void add_kernel_commands();
    Task<Result<Json>> kernel(const Json& arguments);
    Json rates() const;

    // ---- commands_why.cpp
    void add_why_command();
    Task<Result<Json>> why(Json arguments);
    Task<Evidence> gather(Impi impi);
    Task<Impi> impi_named(std::string of);
    std::string refused_algorithms(const std::string& realm) const;

    // ---- commands_trace.cpp
    void add_trace_command();
    Task<Result<Json>> trace(const Json& arguments, ControlClient& client);
    Json failed() const;
    Json failed_attempts() const;
    Result<Json> kept_call(const std::string& call_id) const;
    std::deque<TracedMessage> all_of(const Impi& impi) const;

    std::int64_t seconds_left(TimePoint until) const;

    OperateParts p_;
    ControlServer server_;
    std::function<Result<nlohmann::json>()> reload_;
    std::chrono::system_clock::time_point started_;
    std::optional<Reloaded> reloaded_;
    RegistrationStatistics statistics_;
    Trace::Subscription counting_;  ///< feeds it
};

/// "2026-11-25T21:52:04.120Z"
std::string utc_text(std::chrono::system_clock::time_point time);
nlohmann::json record_json(const DecisionRecord& record);
/// True when `registration` is the one that `of` names: its IMPI, one of its IMPUs, or the UE's address (with or
/// without port).
bool names(const Registration& registration, std::string_view of);

}  // namespace gmgate::daemon
