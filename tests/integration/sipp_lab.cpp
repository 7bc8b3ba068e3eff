#include "tests/integration/sipp_lab.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>

namespace gmgate::test {

namespace {

constexpr const char* kKeys = "k = \"465b5ce8b199b49faa5f0a2ee238a6bc\"\nopc = \"cd63cb71954a9f4e48a5994e37a02baf\"\n";

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

/// One line of SIPp's statistics file by column name; the last line is the whole run.
std::map<std::string, std::string> last_statistics(const std::string& path) {
    std::ifstream file(path);
    std::string head, line, last;
    std::getline(file, head);
    while (std::getline(file, line))
        if (!line.empty()) last = line;
    std::map<std::string, std::string> out;
    std::istringstream names(head), values(last);
    for (std::string name, value; std::getline(names, name, ';') && std::getline(values, value, ';');)
        out[name] = value;
    return out;
}

struct Sipp {
    Sipp(const Lab& lab, const Access& access, const std::string& name, int port, bool follows_routes,
         std::vector<std::string> more)
        : statistics(lab.folder() + "/" + name + ".csv"),
          errors(lab.folder() + "/" + name + ".errors"),
          program({.command = command(access, name, port, follows_routes, std::move(more)),
                   .name = "sipp " + name,
                   .network = &lab.network.ue}) {}

    std::vector<std::string> command(const Access& access, const std::string& name, int port, bool follows_routes,
                                     std::vector<std::string> more) const {
        std::vector<std::string> all{"sipp",
                                     "-t",
                                     access.is_tcp ? "t1" : "u1",
                                     "-i",
                                     std::string(access.ue()),
                                     "-p",
                                     std::to_string(port),
                                     "-nostdin",
                                     "-trace_stat",
                                     "-stf",
                                     statistics,
                                     "-fd",
                                     "1",
                                     "-trace_err",
                                     "-error_file",
                                     errors};
        if (follows_routes)
            all.insert(all.end(),
                       {"-sf", std::string(GMGATE_SIPP) + "/" + name + ".xml", "-key", "domain", kHomeDomain});
        else all.insert(all.end(), {"-sn", name});
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

/// What the kernel of that namespace threw away for want of room: names and numbers that are not zero.
std::string datagram_losses(const Namespace& network) {
    std::string out;
    network.enter([&] {
        std::ifstream v4("/proc/thread-self/net/snmp"), v6("/proc/thread-self/net/snmp6");
        std::string names, values, name, value;
        while (std::getline(v4, names) && std::getline(v4, values)) {
            if (!names.starts_with("Udp:")) continue;
            std::istringstream n(names), v(values);
            while (n >> name && v >> value)
                if (name.ends_with("Errors") && value != "0") out += " " + name + " " + value;
        }
        while (v6 >> name >> value)
            if (name.starts_with("Udp6") && name.ends_with("Errors") && value != "0") out += " " + name + " " + value;
    });
    return out.empty() ? " none" : out;
}

int number_from(const char* variable, int otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::atoi(text) : otherwise;
}

}  // namespace

std::vector<std::string> sipp_users() {
    const std::string path = make_temporary_folder() + "/users.toml";
    std::ofstream file(path);
    file << "realm = \"" << kHomeDomain << "\"\n";
    for (const char* name : {"uac", "uas"}) {
        file << "[[user]]\nimpi = \"" << name << "@" << kHomeDomain << "\"\nimpu = [\"sip:" << name << "@"
             << kHomeDomain << "\"";
        if (std::string_view(name) == "uas")
            file << ", \"sip:service@" << Network::kAccess4 << "\", \"sip:service@[" << Network::kAccess6 << "]\"";
        file << "]\n" << kKeys;
    }
    return {"--users-file", path};
}

SippCalls sipp_calls(SippCalls otherwise) {
    return {number_from("GMGATE_SIPP_CALLS", otherwise.calls), number_from("GMGATE_SIPP_RATE", otherwise.rate),
            otherwise.follows_routes};
}

ProtectedPorts hand_over(Lab& lab, const std::string& user, const Access& access, int port_us) {
    PhoneOptions options;
    options.is_v6 = access.is_v6;
    options.is_tcp = access.is_tcp;
    options.offer = "hmac-sha-1-96/aes-cbc";
    const std::string impi = user + "@" + kHomeDomain;
    options.arguments = {"--impi",    impi,
                         "--impu",    "sip:" + impi,
                         "--k",       "465b5ce8b199b49faa5f0a2ee238a6bc",
                         "--port-us", std::to_string(port_us),
                         "--port-uc", std::to_string(port_us - 1)};
    ProtectedPorts ports;
    std::string states;
    {
        Phone phone(lab, options);
        phone.demand_registered();
        ports = {phone.first().value("port_us", 0), phone.first().value("port_uc", 0),
                 phone.first().value("port_ps", 0), phone.first().value("port_pc", 0)};
        states = lab.network.ue.run("ip xfrm state list");
        phone.program().write_line("quit");
        REQUIRE(phone.program().wait() == 0);
    }
    std::string batch;
    int found = 0;
    for (const StateText& state : read_states(states)) {
        const bool out = state.source == access.ue();
        const std::string own = out ? state.sport : state.dport;
        if (own != std::to_string(ports.us) && own != std::to_string(ports.uc))
            continue;  // another phone's, already put back
        ++found;
        const std::string ends = "src " + state.source + " dst " + state.destination,
                          length = access.is_v6 ? "/128" : "/32";
        // The gateway has seen sequence numbers from gmue: go on far behind them. "flag icmp": an error about a
        // protected datagram must not quote it in clear.
        batch += "xfrm state add " + ends + " proto esp spi " + state.spi + " reqid " + own +
                 " mode transport replay-window 32 replay-oseq 1000 auth-trunc " + state.auth + " 96 enc " + state.enc +
                 "\n";
        for (const char* protocol : {"tcp", "udp"})
            batch += "xfrm policy add src " + state.source + length + " dst " + state.destination + length + " proto " +
                     protocol + " sport " + state.sport + " dport " + state.dport + " dir " +
                     (out ? "out flag icmp" : "in") + " tmpl " + ends + " proto esp reqid " + own + " mode transport\n";
    }
    INFO(states);
    REQUIRE(found == 4);
    lab.network.ue.ip_batch(batch);
    return ports;
}

void check_sipp_calls(Lab& lab, const Access& access, SippCalls wish) {
    const auto [calls, rate, follows_routes] = wish;
    const ProtectedPorts caller = hand_over(lab, "uac", access, 5063), callee = hand_over(lab, "uas", access, 5073);
    if (!access.is_tcp) {
        for (const ProtectedPorts& p : {caller, callee})
            lab.network.ue.run(std::string(access.is_v6 ? "ip6tables-legacy" : "iptables-legacy") +
                               " -t nat -A POSTROUTING -p udp -d " + std::string(access.gateway()) + " --sport " +
                               std::to_string(p.us) + " --dport " + std::to_string(p.ps) + " -j SNAT --to-source " +
                               (access.is_v6 ? "[" + std::string(access.ue()) + "]" : std::string(access.ue())) + ":" +
                               std::to_string(p.uc));
    }
    // A copy of an answer that comes when SIPp has ended makes the phone's kernel send an ICMP error, in ESP by the
    // policy above and in nobody's selector: the gateway's kernel would count it.
    lab.network.ue.run(access.is_v6
                           ? "ip6tables-legacy -A OUTPUT -p icmpv6 --icmpv6-type destination-unreachable -j DROP"
                           : "iptables-legacy -A OUTPUT -p icmp -j DROP");
    Capture link(lab.network.ue, Network::kUeLink);
    const auto before = xfrm_counters(lab.network.gw);

    Sipp uas(lab, access, "uas", callee.us, follows_routes, {});
    const std::string listening =
        std::string("ss -Hln") + (access.is_tcp ? "t" : "u") + " sport = :" + std::to_string(callee.us);
    REQUIRE(eventually([&] { return !lab.network.ue.run(listening).empty(); }));
    const auto patience = std::chrono::seconds(kPatience.count() + 4 * calls / std::max(rate, 1));
    Sipp uac(
        lab, access, "uac", access.is_tcp ? caller.uc : caller.us, follows_routes,
        {"-s", follows_routes ? "uas" : "service", "-m", std::to_string(calls), "-r", std::to_string(rate), "-l", "500",
         "-timeout", std::to_string(patience.count()) + "s", "-timeout_error", access.gateway_port(caller.ps)});
    const int status = uac.program.wait(patience + kPatience);
    INFO(uac.program.tail());
    INFO("SIPp as UAC: ", uac.complaints(), "\nas UAS: ", uas.complaints());
    INFO(without_routine(lab.gateway_log()));
    CHECK(status == 0);  // SIPp: every call was successful
    auto seen = last_statistics(uac.statistics);
    MESSAGE(calls, " calls at ", rate, "/s: successful ", seen["SuccessfulCall(C)"], ", failed ", seen["FailedCall(C)"],
            ", retransmissions ", seen["Retransmissions(C)"], ", response time ", seen["ResponseTime1(C)"],
            ", elapsed ", seen["ElapsedTime(C)"], "; datagrams lost: phones", datagram_losses(lab.network.ue),
            ", gateway", datagram_losses(lab.network.gw), ", core", datagram_losses(lab.network.core));
    CHECK(seen["SuccessfulCall(C)"] == std::to_string(calls));
    CHECK(seen["FailedCall(C)"] == "0");
    CHECK(eventually([&] {
        return last_statistics(uas.statistics)["SuccessfulCall(C)"] == std::to_string(calls);
    }));  // every one of them over there, too

    // Over ESP and over nothing else.
    for (const Frame& frame : link.frames())
        if (frame.contains(" SIP/2.0\r\n"))
            FAIL_CHECK("in clear, from ", frame.source(), ": ", describe(frame), "\n",
                       std::string(frame.bytes.begin(), frame.bytes.end()));
    CHECK(link.count([](const Frame& frame) { return frame.is_esp(); }) >= static_cast<std::size_t>(calls) * 12);
    std::string errors;
    for (const auto& [name, value] : xfrm_counters(lab.network.gw))
        if (value != before.at(name)) errors += fmt::format("{} {} -> {} ", name, before.at(name), value);
    CHECK(errors == "");
}

}  // namespace gmgate::test
