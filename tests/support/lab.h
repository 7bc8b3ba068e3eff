// A whole deployment for one test: three namespaces, the core (gmcore) and the gateway (gmgated), with every log at
// hand.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/netns.h"
#include "tests/support/process.h"

namespace gmgate::test {

/// Where the programs under test are.
struct Programs {
    std::string gmgated, gmue, gmcore, gmctl{};
};

struct LabOptions {
    Programs programs;
    bool is_gateway_started = true;             ///< false: the test starts it in its own way
    std::size_t users = 8;                      ///< generated AKA subscribers
    std::vector<std::string> core_arguments{};  ///< for gmcore
    std::string core_transport = "udp";         ///< between gateway and core
    std::string top_lines{};                    ///< top-level keys of gmgate.toml
    std::string log_level = "debug";
    std::string core_lines{};  ///< more lines for [core]
    std::string next_hops{};   ///< [[core.next-hops]] tables; empty: the lab's core
    std::string core_side = std::string("\"") + Network::kGwCore4 + ":5060\"";  ///< [core] listen, as TOML
    std::string sec_agree_pref = "ipsec3gpp";
    std::string profile_lines{};    ///< more lines for [[ims-aka-profile]]
    std::string interface_lines{};  ///< more lines for [[sip-interface]]
    std::string store_lines{};      ///< more lines for [store]
    std::string more_sections{};    ///< appended to gmgate.toml
    std::string core_listen =
        std::string(Network::kCore4) + ":5060";  ///< of gmcore; the gateway's next hop stays kCore4
    std::function<void(const Network&)>
        prepare{};  ///< called before anything starts: another core between gateway and gmcore
};

class Lab {
public:
    /// Returns when the gateway and the core serve.
    explicit Lab(LabOptions options);
    Lab(const Lab&) = delete;
    Lab& operator=(const Lab&) = delete;
    ~Lab();

    Network network;

    static constexpr int kProtectedServerPorts[] = {6100, 6101};
    static constexpr int kFirstClientPort = 6200, kLastClientPort = 6203;

    const Programs& programs() const { return options_.programs; }
    const std::string& folder() const { return folder_; }
    const std::string& config_path() const { return config_; }
    std::string control_socket() const { return folder_ + "/control.sock"; }

    /// Throws when it is not running at the moment.
    Program& gateway();
    Program& core() { return *core_; }
    void start_gateway();
    /// kill -9: the kernel keeps what it has.
    void kill_gateway();
    /// gmgated --take-over: returns when the new one serves and the old one has ended.
    void take_over();
    /// SIGTERM; returns the exit status.
    int stop_gateway();
    /// Everything that gmgated has printed, also before it was restarted.
    std::string gateway_log() const;

    /// The events that gmcore wrote, oldest first, from number `from` on: a "message" for each message in and out,
    /// "register" for each decision.
    std::vector<nlohmann::json> core_log(std::size_t from = 0) const;
    /// A place in the core's log, to look only at what comes later.
    std::size_t core_mark() const { return core_log().size(); }
    /// "register" events from `from` on.
    std::vector<nlohmann::json> core_registers(std::size_t from = 0) const;
    /// Messages that the core received: raw texts; with a method only the requests of that method.
    std::vector<std::string> core_received(std::size_t from, const std::string& method = {}) const;

private:
    void write_config() const;

    LabOptions options_;
    std::string folder_, config_, core_log_;
    std::string earlier_gateway_log_;
    std::unique_ptr<Program> core_, gateway_;
};

/// A folder of its own below TMPDIR, removed with everything in it.
std::string make_temporary_folder();

}  // namespace gmgate::test
