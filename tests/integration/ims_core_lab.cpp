#include "tests/integration/ims_core_lab.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include <fmt/format.h>

#include "tests/integration/tls_lab.h"

namespace gmgate::test {

namespace {

std::string name_of(const std::string& role) { return role + "." + kHomeDomain; }

void demand_installed(const std::string& file) {
    if (!std::filesystem::exists(file)) throw std::runtime_error(file + " is missing: scripts/setup");
}

void kill(const std::unique_ptr<Program>& program) {
    if (program && program->is_running()) program->kill();
}

}  // namespace

ImsCore::ImsCore(const ImsCoreOptions& wanted) : options_(wanted) {
    demand_installed("/usr/lib/x86_64-linux-gnu/kamailio/modules/ims_icscf.so");
    demand_installed("/usr/sbin/dnsmasq");
    std::ofstream(folder_ + "/resolv.conf") << "nameserver " << kNames4 << "\n";
    std::ofstream(folder_ + "/users.toml") << options_.users;
    LabOptions options = plain_lab();
    options.core_listen = std::string(kApplicationServer4) + ":5060";
    options.core_transport = options_.core_transport;
    options.core_lines = std::string("follow-route = true\nreg-event = true\nname-servers = [\"") + kNames4 +
                         "\"]\npeers = [\"" + scscf_address() + "\"]\n";
    if (options_.is_v6) options.core_side = std::string("\"[") + Network::kGwCore6 + "]:5060\"";
    options.next_hops = "[[core.next-hops]]\nhost = \"" + options_.next_hop + "\"\n";
    options.more_sections = "[timers]\nold-set = 1\n";
    if (options_.has_tls) {
        make_certificate(folder_, "gateway");
        options.sec_agree_pref = "ipsec3gpp-tls";
        for (const auto address : {Network::kAccess4, Network::kAccess6})
            options.more_sections += fmt::format(
                "[[sip-interface.sip-ports]]\naddress = \"{}\"\nport = 5061\ntransport-protocol = \"TLS\"\ntls-profile = \"test\"\n",
                address);
        options.more_sections += fmt::format(
            "[[tls-profile]]\nname = \"test\"\nend-entity-cert = [\"{0}/gateway.pem\"]\nprivate-key = [\"{0}/gateway.key\"]\n",
            folder_);
    }
    options.prepare = [this](const Network& network) { start_core(network); };
    lab_ = std::make_unique<Lab>(options);
}

ImsCore::~ImsCore() {
    lab_.reset();
    kill(icscf_);
    kill(scscf_);
    hss_.reset();
    names_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

void ImsCore::start_core(const Network& network) {
    std::string addresses;
    for (const char* address : {kApplicationServer4, kHss4, kScscf4, kNames4})
        addresses += fmt::format("addr add {}/24 dev core0\n", address);
    for (const char* address : {kHss6, kScscf6}) addresses += fmt::format("addr add {}/64 dev core0 nodad\n", address);
    network.core.ip_batch(addresses);
    start_names(network);
    std::vector<std::string> hss{GMHSS, "--listen", hss_address(), "--log", folder_ + "/hss.jsonl", "--print-ready"};
    if (options_.users.empty()) hss.insert(hss.end(), {"--users", "8"});
    else hss.insert(hss.end(), {"--users-file", folder_ + "/users.toml"});
    hss.insert(hss.end(), options_.hss_arguments.begin(), options_.hss_arguments.end());
    hss_ = std::make_unique<Program>(ProgramOptions{.command = hss, .name = "gmhss", .network = &network.core});
    hss_->wait_for_text("gmhss ready");
    icscf_ = start_kamailio(network, "icscf", {});
    scscf_ = start_kamailio(network, "scscf", options_.scscf_defines);
    // Kamailio does not tell when it serves; that both have reached the HSS is the last thing they do.
    if (!eventually([&] { return connected_peers() == 2; }))
        throw std::runtime_error("the core does not reach the HSS: " + logs());
}

void ImsCore::start_names(const Network& network) {
    std::vector<std::string> names{"dnsmasq",
                                   "--keep-in-foreground",
                                   "--conf-file=/dev/null",
                                   "--pid-file",
                                   "--user=root",
                                   "--no-resolv",
                                   "--no-hosts",
                                   "--bind-interfaces",
                                   std::string("--listen-address=") + kNames4,
                                   std::string("--local=/") + kHomeDomain + "/",
                                   "--host-record=" + name_of("icscf") + "," + icscf_address(),
                                   "--host-record=" + name_of("scscf") + "," + scscf_address(),
                                   "--host-record=" + name_of("hss") + "," + hss_address()};
    names.insert(names.end(), options_.records.begin(), options_.records.end());
    names_ = std::make_unique<Program>(ProgramOptions{.command = names, .name = "dnsmasq", .network = &network.core});
    if (!eventually([&] { return network.core.run("ss -Hlnu sport = :53").find(kNames4) != std::string::npos; }))
        throw std::runtime_error("no dnsmasq: " + names_->tail());
}

// As a user has it: the files in /etc/kamailio. All of it, names included, is seen by this Kamailio only, and so is
// /tmp: CDP names its pipes there by process id, and each of the two has a process namespace of its own.
std::unique_ptr<Program> ImsCore::start_kamailio(const Network& network, const std::string& role,
                                                 const std::vector<std::string>& more) const {
    std::string script = fmt::format(
        "set -e; mount -t tmpfs tmpfs /etc/kamailio; cp -r {0}/. /etc/kamailio/; mount --bind {1}/resolv.conf /etc/resolv.conf; mount -t tmpfs tmpfs /tmp; mkdir /tmp/run; "
        "{3}exec kamailio -DD -E -f /etc/kamailio/{2}.cfg -Y /tmp/run -P /tmp/run/pid -m 32 -M 4",
        GMGATE_KAMAILIO_IMS, folder_, role,
        options_.is_v6 ? fmt::format("sed -i 's/!LISTEN!10[^!]*!/!LISTEN![{}]!/' /etc/kamailio/{}.cfg; ",
                                     role == "icscf" ? icscf_address() : scscf_address(), role)
                       : "");
    for (const auto& word : more) script += " -A " + word;
    return std::make_unique<Program>(ProgramOptions{
        .command = {"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script},
        .name = role,
        .network = &network.core});
}

std::size_t ImsCore::connected_peers() const {
    std::ifstream file(folder_ + "/hss.jsonl");
    std::string line;
    int peers = 0;
    while (std::getline(file, line)) {
        const auto event = nlohmann::json::parse(line, nullptr, false);
        if (!event.is_discarded() && event.value("event", "") == "peer")
            peers += event.value("state", "") == "open" ? 1 : -1;
    }
    return static_cast<std::size_t>(std::max(peers, 0));
}

void ImsCore::restart_scscf() {
    kill(scscf_);
    if (!eventually([&] { return connected_peers() == 1; }))
        throw std::runtime_error("the HSS still has the S-CSCF: " + logs());
    scscf_ = start_kamailio(lab_->network, "scscf", options_.scscf_defines);
    if (!eventually([&] { return connected_peers() == 2; }))
        throw std::runtime_error("the S-CSCF does not come back: " + logs());
}

nlohmann::json ImsCore::ask_hss(const std::string& command) {
    const auto from = hss_->line_count();
    hss_->write_line(command);
    return nlohmann::json::parse(hss_->wait_for_line([](const std::string& line) { return line.starts_with('{'); },
                                                     "an answer to " + command, from)
                                     .text);
}

std::vector<nlohmann::json> ImsCore::decisions(const std::string& command, const std::string& impi) const {
    std::vector<nlohmann::json> found;
    std::ifstream file(folder_ + "/hss.jsonl");
    std::string line;
    while (std::getline(file, line)) {
        auto event = nlohmann::json::parse(line, nullptr, false);
        if (event.is_discarded() || event.value("command", "") != command) continue;
        if (impi.empty() || event.value("impi", "") == impi) found.push_back(std::move(event));
    }
    return found;
}

std::vector<std::string> ImsCore::registered_with(const std::string& impi) {
    return ask_hss("status " + impi).at("registered");
}

std::vector<std::string> ImsCore::tls_arguments(const std::string& impi, const std::string& password) const {
    return {"--security", "tls",        "--tls-ca", folder_ + "/gateway.pem", "--tls-name", kTlsName, "--impi",
            impi,         "--password", password};
}

std::string ImsCore::logs() const {
    std::string out;
    for (const auto* program : {names_.get(), hss_.get(), icscf_.get(), scscf_.get()})
        if (program != nullptr) out += "---- " + program->name() + "\n" + program->tail(40) + "\n";
    if (lab_) out += "---- gmgated\n" + lab_->gateway_log();
    return out;
}

}  // namespace gmgate::test
