// A gmue under remote control: commands go in as lines, what happened comes back as JSON events.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/lab.h"

namespace gmgate::test {

struct PhoneOptions {
    std::size_t user = 0;  ///< number of the generated subscriber
    bool is_v6 = false;
    bool is_tcp = false;
    std::string offer{};                   ///< "hmac-sha-1-96/aes-cbc"; empty: what gmue offers by itself
    std::vector<std::string> arguments{};  ///< more options of gmue
    const Namespace* network = nullptr;    ///< null: the lab's ue
};

/// A test phone in the lab's ue namespace. Every method waits for its outcome; a phone that does not do as told is an
/// exception that shows its events.
class Phone {
public:
    /// Starts it, which means that it registers, and waits for the outcome.
    Phone(Lab& lab, PhoneOptions options);

    /// The event that ended the first registration: "registered" or "register_failed".
    const nlohmann::json& first() const { return first_; }
    void demand_registered() const;
    /// `challenged`: asks the core for a challenge.
    nlohmann::json reregister(bool challenged);
    void deregister();
    /// Sends a MESSAGE and returns the status of the final answer, 0 when none came.
    int message(const std::string& to, const std::string& text);
    /// Sends a MESSAGE and does not wait for anything.
    void start_message(const std::string& to, const std::string& text);
    /// Waits until a MESSAGE with exactly this text has come in.
    void await_message(const std::string& text);
    /// A whole call: INVITE, answer, ACK, BYE. Returns "call_ended" or "call_failed".
    nlohmann::json call(const std::string& to);

    /// Sends a command and returns the first event after it that `ends` accepts.
    nlohmann::json command(const std::string& line, const std::function<bool(const nlohmann::json&)>& ends,
                           std::chrono::seconds patience = kPatience);
    nlohmann::json await_event(const std::function<bool(const nlohmann::json&)>& wanted, const std::string& description,
                               std::size_t from = 0, std::chrono::seconds patience = kPatience);
    /// All events of that name so far.
    std::vector<nlohmann::json> events(const std::string& name, std::size_t from = 0) const;
    /// Lines of output so far: a place to start waiting from.
    std::size_t mark() const { return program_.line_count(); }

    std::string impu() const;
    Program& program() { return program_; }

private:
    static ProgramOptions start_options(Lab& lab, const PhoneOptions& options);

    PhoneOptions options_;
    Program program_;
    nlohmann::json first_;
};

/// Private and first public identity of a generated subscriber.
std::string impi_of_user(std::size_t user);
std::string impu_of_user(std::size_t user);
/// Home domain of the generated subscribers.
inline constexpr const char* kHomeDomain = "ims.mnc001.mcc001.3gppnetwork.org";

}  // namespace gmgate::test
