// SIPp, a program that knows nothing of IPsec, calls through the gateway: its built-in UAC and UAS scenarios, unchanged, over SAs that
// iproute2 puts into the phone's kernel.
//
// gmue registers and leaves; what it had in the kernel is put back by `ip xfrm` with selectors of the test's own, so that from then on
// nothing of ours runs on the phone's side. SIPp has one port for everything where B-15 wants two: over TCP that is enough (the UAC
// connects from port_uc, the UAS listens on port_us); over UDP both sit on port_us and netfilter in the phone's namespace turns what they
// send into port_uc -> port_ps.
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// Calls per case; the number by hand is 10000 (GMGATE_SIPP_CALLS), with a rate that the machine bears (GMGATE_SIPP_RATE).
int number_from(const char* variable, int otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::atoi(text) : otherwise;
}

/// What a phone agreed on.
struct Ports {
    int us = 0, uc = 0, ps = 0, pc = 0;
};

constexpr const char* kKeys = "k = \"465b5ce8b199b49faa5f0a2ee238a6bc\"\nopc = \"cd63cb71954a9f4e48a5994e37a02baf\"\n";


/// The default UAC calls sip:service@HOST:PORT of where it sends to: the gateway. So that is one of the callee's names.
std::string write_users() {
    const std::string path = make_temporary_folder() + "/users.toml";
    std::ofstream file(path);
    file << "realm = \"" << kHomeDomain << "\"\n";
    for (const char* name : {"uac", "uas"}) {
        file << "[[user]]\nimpi = \"" << name << "@" << kHomeDomain << "\"\nimpu = [\"sip:" << name << "@" << kHomeDomain << "\"";
        if (std::string_view(name) == "uas") file << ", \"sip:service@" << Network::kAccess4 << "\", \"sip:service@[" << Network::kAccess6 << "]\"";
        file << "]\n" << kKeys;
    }
    return path;
}

/// One entry of "ip xfrm state list": words as printed.
struct StateText {
    std::string source, destination, spi, auth, enc, sport, dport;
};

std::vector<StateText> read_states(const std::string& printed) {
    std::vector<StateText> out;
    std::istringstream words(printed);
    bool in_selector = false;
    for (std::string word; words >> word;) {
        if (word == "sel") in_selector = true;
        if (word == "src" && !in_selector) out.emplace_back();
        if (out.empty()) continue;
        StateText& state = out.back();
        std::string name;
        if (word == "src" && !in_selector) words >> state.source;
        else if (word == "dst" && !in_selector) words >> state.destination;
        else if (word == "spi") words >> state.spi;
        else if (word == "auth-trunc") words >> name >> state.auth, state.auth = name + " " + state.auth;
        else if (word == "enc") words >> name >> state.enc, state.enc = name + " " + state.enc;
        else if (word == "sport") words >> state.sport;
        else if (word == "dport") words >> state.dport, in_selector = false;
    }
    return out;
}

/// Registers a gmue as that user, notes its SAs, ends it without a word to the network, and puts the SAs back with ip(8).
Ports hand_over(Lab& lab, const std::string& user, const Access& access, int port_us) {
    PhoneOptions options;
    options.is_v6 = access.is_v6;
    options.is_tcp = access.is_tcp;
    options.offer = "hmac-sha-1-96/aes-cbc";
    const std::string impi = user + "@" + kHomeDomain;
    options.arguments = {"--impi", impi, "--impu", "sip:" + impi, "--k", "465b5ce8b199b49faa5f0a2ee238a6bc", "--port-us", std::to_string(port_us), "--port-uc", std::to_string(port_us - 1)};
    Ports ports;
    std::string states;
    {
        Phone phone(lab, options);
        phone.demand_registered();
        ports = {phone.first().value("port_us", 0), phone.first().value("port_uc", 0), phone.first().value("port_ps", 0), phone.first().value("port_pc", 0)};
        states = lab.network.ue.run("ip xfrm state list");
        phone.program().write_line("quit");
        REQUIRE(phone.program().wait() == 0);
    }
    std::string batch;
    int found = 0;
    for (const StateText& state : read_states(states)) {
        const bool out = state.source == access.ue();
        const std::string own = out ? state.sport : state.dport;
        if (own != std::to_string(ports.us) && own != std::to_string(ports.uc)) continue;  // another phone's, already put back
        ++found;
        const std::string ends = "src " + state.source + " dst " + state.destination, length = access.is_v6 ? "/128" : "/32";
        // The gateway has seen sequence numbers from gmue: go on far behind them. "flag icmp": an error about a protected datagram must
        // not quote it in clear.
        batch += "xfrm state add " + ends + " proto esp spi " + state.spi + " reqid " + own + " mode transport replay-window 32 replay-oseq 1000 auth-trunc " + state.auth + " 96 enc " + state.enc + "\n";
        for (const char* protocol : {"tcp", "udp"})
            batch += "xfrm policy add src " + state.source + length + " dst " + state.destination + length + " proto " + protocol + " sport " + state.sport + " dport " + state.dport + " dir " +
                     (out ? "out flag icmp" : "in") + " tmpl " + ends + " proto esp reqid " + own + " mode transport\n";
    }
    INFO(states);
    REQUIRE(found == 4);
    lab.network.ue.ip_batch(batch);
    return ports;
}

/// One line of SIPp's statistics file by column name; the last line is the whole run.
std::map<std::string, std::string> last_statistics(const std::string& path) {
    std::ifstream file(path);
    std::string head, line, last;
    std::getline(file, head);
    while (std::getline(file, line))
        if (!line.empty()) last = line;
    std::map<std::string, std::string> out;
    std::istringstream names(head), values(last);
    for (std::string name, value; std::getline(names, name, ';') && std::getline(values, value, ';');) out[name] = value;
    return out;
}

struct Sipp {
    Sipp(const Lab& lab, const Access& access, const std::string& name, int port, std::vector<std::string> more)
        : statistics(lab.folder() + "/" + name + ".csv"), errors(lab.folder() + "/" + name + ".errors"),
          program({.command = command(access, name, port, std::move(more)), .name = "sipp " + name, .network = &lab.network.ue}) {}

    std::vector<std::string> command(const Access& access, const std::string& name, int port, std::vector<std::string> more) const {
        std::vector<std::string> all{"sipp", "-sn", name, "-t", access.is_tcp ? "t1" : "u1", "-i", std::string(access.ue()), "-p", std::to_string(port), "-nostdin", "-trace_stat",
                                     "-stf", statistics, "-fd", "1", "-trace_err", "-error_file", errors};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    /// The beginning of what it complained about.
    std::string complaints() const {
        std::ifstream file(errors);
        return std::string(std::istreambuf_iterator<char>(file), {}).substr(0, 3000);
    }

    std::string statistics, errors;
    Program program;
};

/// The gateway's log without what it says of every call.
std::string without_routine(const std::string& log) {
    std::string out;
    std::istringstream lines(log);
    for (std::string line; std::getline(lines, line);)
        if (line.find("proxy-route-replaced") == std::string::npos) out += line + "\n";
    return out;
}

void check_calls(const Access& access) {
    const int calls = number_from("GMGATE_SIPP_CALLS", 100), rate = number_from("GMGATE_SIPP_RATE", 20);
    LabOptions options = plain_lab();
    options.core_arguments = {"--users-file", write_users()};
    Lab lab(options);
    const Ports caller = hand_over(lab, "uac", access, 5063), callee = hand_over(lab, "uas", access, 5073);
    if (!access.is_tcp) {
        for (const Ports& p : {caller, callee})
            lab.network.ue.run(std::string(access.is_v6 ? "ip6tables-legacy" : "iptables-legacy") + " -t nat -A POSTROUTING -p udp -d " + std::string(access.gateway()) + " --sport " + std::to_string(p.us) +
                               " --dport " + std::to_string(p.ps) + " -j SNAT --to-source " + (access.is_v6 ? "[" + std::string(access.ue()) + "]" : std::string(access.ue())) + ":" + std::to_string(p.uc));
    }
    Capture link(lab.network.ue, Network::kUeLink);
    const auto before = xfrm_counters(lab.network.gw);

    Sipp uas(lab, access, "uas", callee.us, {});
    const std::string listening = std::string("ss -Hln") + (access.is_tcp ? "t" : "u") + " sport = :" + std::to_string(callee.us);
    REQUIRE(eventually([&] { return !lab.network.ue.run(listening).empty(); }));
    const auto patience = std::chrono::seconds(kPatience.count() + 4 * calls / std::max(rate, 1));
    Sipp uac(lab, access, "uac", access.is_tcp ? caller.uc : caller.us,
             {"-s", "service", "-m", std::to_string(calls), "-r", std::to_string(rate), "-l", "500", "-timeout", std::to_string(patience.count()) + "s", "-timeout_error", access.gateway_port(caller.ps)});
    const int status = uac.program.wait(patience + kPatience);
    INFO(uac.program.tail());
    INFO("SIPp as UAC: ", uac.complaints(), "\nas UAS: ", uas.complaints());
    INFO(without_routine(lab.gateway_log()));
    CHECK(status == 0);  // SIPp: every call was successful
    auto seen = last_statistics(uac.statistics);
    MESSAGE(calls, " calls at ", rate, "/s: successful ", seen["SuccessfulCall(C)"], ", failed ", seen["FailedCall(C)"], ", retransmissions ", seen["Retransmissions(C)"], ", response time ",
            seen["ResponseTime1(C)"], ", elapsed ", seen["ElapsedTime(C)"]);
    CHECK(seen["SuccessfulCall(C)"] == std::to_string(calls));
    CHECK(seen["FailedCall(C)"] == "0");
    CHECK(eventually([&] { return last_statistics(uas.statistics)["SuccessfulCall(C)"] == std::to_string(calls); }));  // every one of them over there, too

    // Over ESP and over nothing else.
    for (const Frame& frame : link.frames())
        if (frame.contains("sip:service@")) FAIL_CHECK("in clear, from ", frame.source(), ": ", describe(frame), "\n", std::string(frame.bytes.begin(), frame.bytes.end()));
    CHECK(link.count([](const Frame& frame) { return frame.is_esp(); }) >= static_cast<std::size_t>(calls) * 12);
    CHECK(xfrm_counters(lab.network.gw) == before);
}

}  // namespace

TEST_SUITE("sipp") {
    TEST_CASE("SIPp's UAC calls SIPp's UAS over TCP and IPv4") { check_calls({false, true}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over TCP and IPv6") { check_calls({true, true}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over UDP and IPv4, with the ports turned") { check_calls({false, false}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over UDP and IPv6, with the ports turned") { check_calls({true, false}); }
}
