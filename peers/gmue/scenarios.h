// What the subcommands do with phones.
#pragma once

#include "options.h"
#include "phone.h"

namespace gmgate::peers {

/// Exit status: 0 as wished, 1 not, 2 the phone could not be set up.
enum class Exit { ok = 0, failed = 1, local = 2 };

/// Prints events and verdicts as the options say.
class Reporter {
public:
    explicit Reporter(const Options& options, bool events) : options_(options), events_(events || options.json) {}
    void event(const nlohmann::json& event) const;
    /// Judges by --expect, prints the verdict line and returns the exit status.
    [[nodiscard]] Exit verdict(const Verdict& verdict, const std::string& done, const std::string& what) const;
    [[nodiscard]] bool as_wished(const Verdict& verdict) const;

private:
    const Options& options_;
    bool events_;
};

/// register, deregister, reregister, message, call.
[[nodiscard]] Task<Exit> run_once(const Options& options, PhoneEnvironment& environment, const Reporter& reporter,
                                  std::string subcommand);
/// Many phones: register at a rate, hold, deregister, sum up.
[[nodiscard]] Task<Exit> run_load(const Options& options, PhoneEnvironment& environment, const Reporter& reporter,
                                  std::string subcommand);
/// Commands from standard input until quit.
[[nodiscard]] Task<Exit> run_interactive(const Options& options, PhoneEnvironment& environment,
                                         const Reporter& reporter);

}  // namespace gmgate::peers
