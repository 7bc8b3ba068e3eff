#include "tests/support/lab.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace gmgate::test {

std::string make_temporary_folder() {
    const char* parent = std::getenv("TMPDIR");
    std::string pattern = std::string(parent != nullptr ? parent : "/tmp") + "/gmgate-test.XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a folder " + pattern);
    return pattern;
}

Lab::Lab(LabOptions options) : options_(std::move(options)), folder_(make_temporary_folder()) {
    config_ = folder_ + "/gmgate.toml";
    core_log_ = folder_ + "/core.jsonl";
    write_config();
    if (options_.prepare) options_.prepare(network);
    std::vector<std::string> command{options_.programs.gmcore,
                                     "--listen",
                                     options_.core_listen,
                                     "--users",
                                     std::to_string(options_.users),
                                     "--log",
                                     core_log_,
                                     "--print-ready",
                                     "--steer"};
    command.insert(command.end(), options_.core_arguments.begin(), options_.core_arguments.end());
    core_ = std::make_unique<Program>(ProgramOptions{.command = command, .name = "gmcore", .network = &network.core});
    if (options_.is_gateway_started) start_gateway();
    core_->wait_for_text("gmcore ready");
}

Lab::~Lab() {
    // In this order, so that neither complains of the other.
    gateway_.reset();
    core_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

namespace {

/// A loop that is late because the machine has other things to do is no overload, and a test's phones are many at few
/// addresses, but where that is the subject.
std::string on_a_busy_machine(std::string sections) {
    constexpr std::string_view header = "[limits]\n";
    std::string lines;
    if (sections.find("loop-lag") == std::string::npos) lines += "loop-lag = 60000\n";
    if (sections.find("authentications") == std::string::npos)
        lines += "authentications = 0\nauthentications-per-source = 0\nauthentications-per-impi = 0\n";
    const auto limits = sections.find(header);
    if (limits == std::string::npos) return sections.append(header).append(lines);
    return sections.insert(limits + header.size(), lines);
}

// $GMGATE_SA_ENGINE: the same tests with another engine than the default one.
std::string with_engine(std::string sections) {
    const char* engine = std::getenv("GMGATE_SA_ENGINE");
    if (!engine) return sections;
    const std::string header = "[xfrm]\n", line = "sa-engine = \"" + std::string(engine) + "\"\n";
    const auto xfrm = sections.find(header);
    if (xfrm == std::string::npos) return sections.append(header).append(line);
    return sections.insert(xfrm + header.size(), line);
}

}  // namespace

void Lab::write_config() const {
    std::ofstream file(config_);
    // Tests say that the core heard nothing: no pings, but where they are the subject.
    const bool pings = options_.core_lines.find("ping-interval") != std::string::npos;
    file << "log-level = \"" << options_.log_level << "\"\ncontrol-socket = \"" << control_socket() << "\"\n"
         << options_.top_lines << "[core]\nlisten = " << options_.core_side << "\n"
         << (options_.next_hops.empty() ? "next-hop = \"" + std::string(Network::kCore4) + ":5060\"\n" : "")
         << "transport = \"" << options_.core_transport << "\"\nvisited-network-id = \"visited.example\"\n"
         << (pings ? "" : "ping-interval = 0\n") << options_.core_lines << options_.next_hops
         << "[[ims-aka-profile]]\nname = \"volte\"\nprotected-server-port = [" << kProtectedServerPorts[0] << ", "
         << kProtectedServerPorts[1] << "]\nstart-protected-client-port = " << kFirstClientPort
         << "\nend-protected-client-port = " << kLastClientPort << '\n'
         << options_.profile_lines
         << "[[sip-interface]]\nrealm-id = \"access\"\nsec-agree-feature = \"enabled\"\nsec-agree-pref = \""
         << options_.sec_agree_pref << "\"\n"
         << options_.interface_lines;
    for (const char* address : {Network::kAccess4, Network::kAccess6})
        file << "[[sip-interface.sip-ports]]\naddress = \"" << address
             << "\"\nport = 5060\ntransport-protocol = [\"UDP\", \"TCP\"]\nims-aka-profile = \"volte\"\n";
    file << "[store]\nfile = \"" << folder_ << "/registrations.db\"\n"
         << options_.store_lines << "[restart]\ntake-over-socket = \"" << folder_ << "/take-over.sock\"\n";
    file << with_engine(on_a_busy_machine(options_.more_sections));
    if (!file.flush()) throw std::runtime_error("cannot write " + config_);
}

Program& Lab::gateway() {
    if (!gateway_) throw std::logic_error("the gateway is not running");
    return *gateway_;
}

void Lab::start_gateway() {
    gateway_ = std::make_unique<Program>(ProgramOptions{
        .command = {options_.programs.gmgated, "--config", config_}, .name = "gmgated", .network = &network.gw});
    gateway_->wait_for_text("gateway-ready");
    const char* engine = std::getenv("GMGATE_SA_ENGINE");
    if (engine && std::string_view(engine) == "libcharon") gateway_->wait_for_text("engine=\"libcharon 5.9.8\"");
}

void Lab::kill_gateway() {
    gateway().kill();
    earlier_gateway_log_ += gateway_->output();
    gateway_.reset();
}

void Lab::take_over() {
    auto next = std::make_unique<Program>(
        ProgramOptions{.command = {options_.programs.gmgated, "--config", config_, "--take-over"},
                       .name = "gmgated",
                       .network = &network.gw});
    next->wait_for_text("gateway-ready");
    const int status = gateway().wait();
    earlier_gateway_log_ += gateway_->output();
    gateway_ = std::move(next);
    if (status != 0)
        throw std::runtime_error("the gateway that handed over ended with status " + std::to_string(status));
}

int Lab::stop_gateway() {
    const int status = gateway().terminate();
    earlier_gateway_log_ += gateway_->output();
    gateway_.reset();
    return status;
}

std::string Lab::gateway_log() const { return earlier_gateway_log_ + (gateway_ ? gateway_->output() : ""); }

std::vector<nlohmann::json> Lab::core_log(std::size_t from) const {
    std::vector<nlohmann::json> events;
    std::ifstream file(core_log_);
    std::string line;
    for (std::size_t i = 0; std::getline(file, line); ++i) {
        if (file.eof()) break;  // being written at this moment
        if (i >= from) events.push_back(nlohmann::json::parse(line));
    }
    return events;
}

std::vector<nlohmann::json> Lab::core_registers(std::size_t from) const {
    auto events = core_log(from);
    std::erase_if(events, [](const nlohmann::json& event) { return event.value("event", "") != "register"; });
    return events;
}

std::vector<std::string> Lab::core_received(std::size_t from, const std::string& method) const {
    std::vector<std::string> texts;
    for (const auto& event : core_log(from)) {
        if (event.value("event", "") != "message" || event.value("dir", "") != "in") continue;
        const bool is_request = !event.contains("status");  // a response has the method of its request
        if (method.empty() || (is_request && event.value("method", "") == method))
            texts.push_back(event.value("raw", ""));
    }
    return texts;
}

}  // namespace gmgate::test
