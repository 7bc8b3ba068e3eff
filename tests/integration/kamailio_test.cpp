// A core that nobody here wrote: Kamailio as Debian ships it, between the gateway and gmcore, or as the whole core;
// baresip, gmue and SIPp as phones. The configuration files are in kamailio/, as docs/core.md recommends them.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/sipp_lab.h"

using namespace gmgate::test;

namespace {

using Event = nlohmann::json;

auto named(const std::string& name) {
    return [name](const Event& event) { return event.value("event", "") == name; };
}

constexpr const char* kBehind = "10.2.0.3";  ///< gmcore, when Kamailio has the address of the core

std::string configuration(const std::string& name) { return std::string(GMGATE_KAMAILIO) + "/" + name; }

/// Debian 13's root, made by kamailio/debian13 (a ctest fixture).
std::string debian13() {
    const char* folder = std::getenv("GMGATE_DEBIAN13");
    return folder != nullptr ? folder : "/var/cache/gmgate/debian13";
}

void demand(const std::string& file, const std::string& remedy) {
    if (!std::filesystem::exists(file)) throw std::runtime_error(file + " is missing: " + remedy);
}

/// Kamailio in the core's namespace, in the foreground, its log on standard error.
std::unique_ptr<Program> start_kamailio(const Network& network, const std::string& file) {
    demand("/usr/sbin/kamailio", "scripts/setup");
    const std::string folder = make_temporary_folder();
    auto program = std::make_unique<Program>(
        ProgramOptions{.command = {"unshare", "--pid", "--fork", "--kill-child", "kamailio", "-DD", "-E", "-f",
                                   configuration(file), "-Y", folder, "-P", folder + "/pid", "-m", "32", "-M", "4"},
                       .name = "kamailio " + file,
                       .network = &network.core});
    return program;
}

/// Debian 13's Kamailio over its own root; what it writes stays in the guest's memory.
std::unique_ptr<Program> start_kamailio6(const Network& network, const std::string& file) {
    const std::string root = debian13();
    demand(root + "/usr/sbin/kamailio", "tests/integration/kamailio/debian13 makes it");
    const std::string script = "set -e; mount --bind " + root + " " + root + "; mount -t proc proc " + root +
                               "/proc; for f in run tmp; do mount -t tmpfs tmpfs " + root +
                               "/$f; done; mount --bind /dev " + root + "/dev; cp " + configuration(file) + " " + root +
                               "/tmp/; exec chroot " + root + " kamailio -DD -E -f /tmp/" + file +
                               " -Y /tmp -P /tmp/pid -m 32 -M 4";
    return std::make_unique<Program>(
        ProgramOptions{.command = {"unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script},
                       .name = "kamailio 6",
                       .network = &network.core});
}

/// With a process namespace of its own all of its processes end with it. Not by SIGTERM: once in some ten runs on a
/// busy machine it waits for one of them for a minute.
void end_kamailio(const std::unique_ptr<Program>& kamailio) {
    if (kamailio && kamailio->is_running()) kamailio->kill();
}

/// Kamailio says nothing of its own accord when its processes are up.
void await_core(const Network& network) {
    REQUIRE(eventually(
        [&] { return network.core.run("ss -Hlnu sport = :5060").find(Network::kCore4) != std::string::npos; }));
}

/// Two AKA phones with SAs call each other and send a MESSAGE, the core's side being Kamailio in front of gmcore.
struct Between {
    Between(std::unique_ptr<Program> (*start)(const Network&, const std::string&), const std::string& file,
            const std::string& core_transport = "udp", const std::vector<std::string>& core_arguments = {}) {
        LabOptions options = plain_lab();
        options.core_arguments = core_arguments;
        options.core_listen = std::string(kBehind) + ":5060";
        options.core_transport = core_transport;
        options.prepare = [&](const Network& network) {
            network.core.ip_batch(std::string("addr add ") + kBehind + "/24 dev core0\n");
            kamailio = start(network, file);
            await_core(network);
        };
        lab = std::make_unique<Lab>(options);
    }
    ~Between() {
        lab.reset();
        end_kamailio(kamailio);
    }
    std::unique_ptr<Program> kamailio;
    std::unique_ptr<Lab> lab;
};

void check_between(Between& between, const Access& from, const Access& to) {
    Lab& lab = *between.lab;
    Capture link(lab.network.ue, Network::kUeLink);
    PhoneOptions options;
    options.is_v6 = from.is_v6;
    options.is_tcp = from.is_tcp;
    options.arguments = {"--100rel"};
    Phone caller(lab, options);
    options.user = 1;
    options.is_v6 = to.is_v6;
    options.is_tcp = to.is_tcp;
    Phone callee(lab, options);
    INFO(between.kamailio->tail(60));
    INFO(lab.gateway_log());
    caller.demand_registered();
    callee.demand_registered();
    // Our Path and Kamailio's, the topmost nearest to the core (RFC 3327 §5.2).
    const auto registers = lab.core_registers();
    REQUIRE_FALSE(registers.empty());
    const auto path = registers.back()["path"];
    REQUIRE(path.size() == 2);
    CHECK(path[0].get<std::string>().find(Network::kCore4) != std::string::npos);
    CHECK(path[1].get<std::string>().find(Network::kGwCore4) != std::string::npos);

    const auto text = unique_word("by-kamailio-");
    CHECK(caller.message(callee.impu(), text) == 200);
    callee.await_message(text);
    CHECK(callee.message(caller.impu(), text) == 200);

    caller.program().write_line("call " + callee.impu() + " 600");
    CHECK(caller.await_event(named("prack_sent"), "PRACK").value("ok", false));
    caller.await_event(named("call_established"), "the call");
    callee.await_event(named("call_established"), "the ACK");
    CHECK(caller.command("hold", named("reinvite_sent")).value("direction", "") == "recvonly");
    callee.await_event(named("reinvite_acknowledged"), "the ACK of the re-INVITE");
    CHECK(callee.command("update", named("update_sent")).value("ok", false));
    CHECK(callee.command("hangup", named("call_ended")).value("ok", false));
    CHECK(caller.await_event(named("call_ended"), "the BYE").value("by", "") == "remote");

    callee.program().write_line("register");
    caller.deregister();
    CHECK(lab.gateway().is_running());
    CHECK(link.find("INVITE sip:").empty());
    CHECK(link.find(text).empty());
}

constexpr const char* kPassword = "correct-horse";

/// Kamailio as registrar; the gateway has a TLS port and the phones are digest users.
struct Registrar {
    Registrar() {
        run_program({.command = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                                 "-nodes", "-days", "90", "-subj", "/CN=pcscf.visited.example", "-addext",
                                 "subjectAltName=DNS:pcscf.visited.example,IP:10.1.0.1", "-keyout", folder + "/key.pem",
                                 "-out", folder + "/cert.pem"}});
        LabOptions options = plain_lab();
        options.sec_agree_pref = "tls-ipsec3gpp";
        options.core_listen = std::string(kBehind) + ":5060";
        options.more_sections = std::string("[[sip-interface.sip-ports]]\naddress = \"") + Network::kAccess4 +
                                "\"\nport = 5061\ntransport-protocol = \"TLS\"\ntls-profile = \"test\"\n" +
                                "[[tls-profile]]\nname = \"test\"\nend-entity-cert = [\"" + folder +
                                "/cert.pem\"]\nprivate-key = [\"" + folder + "/key.pem\"]\n";
        options.prepare = [&](const Network& network) {
            network.core.ip_batch(std::string("addr add ") + kBehind + "/24 dev core0\n");
            kamailio = start_kamailio(network, "registrar.cfg");
            await_core(network);
        };
        lab = std::make_unique<Lab>(options);
    }
    ~Registrar() {
        lab.reset();
        end_kamailio(kamailio);
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }

    /// A baresip for that user over TLS; its menu obeys ctrl_tcp on that port.
    std::unique_ptr<Program> baresip(const std::string& user, int control, bool answers) const {
        const std::string home = folder + "/" + user;
        std::filesystem::create_directory(home);
        const std::string aor = user + "@" + kHomeDomain;
        std::ofstream(home + "/accounts")
            << "<sip:" << aor << ";transport=tls>;auth_user=" << aor << ";auth_pass=\"" << kPassword
            << "\";outbound=\"sip:" << Network::kAccess4 << ":5061;transport=tls\";regint=600;audio_codecs=PCMU"
            << (answers ? ";answermode=auto" : "") << "\n";
        std::ofstream(home + "/contacts");
        std::ofstream(home + "/config")
            << "sip_listen " << Network::kUe4 << ":0\nsip_cafile " << folder << "/cert.pem\nnet_interface "
            << Network::kUeLink
            << "\naudio_source aubridge,none\naudio_player aubridge,none\naudio_alert aubridge,none\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\n"
               "module aubridge.so\nmodule uuid.so\nmodule_tmp account.so\nmodule_app menu.so\nmodule_app contact.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen "
            << Network::kUe4 << ":" << control << "\n";
        demand("/usr/bin/baresip", "scripts/setup");
        return std::make_unique<Program>(ProgramOptions{
            .command = {"baresip", "-f", home, "-v"}, .name = "baresip " + user, .network = &lab->network.ue});
    }

    std::string folder = make_temporary_folder();
    std::unique_ptr<Program> kamailio;
    std::unique_ptr<Lab> lab;
};

/// One command for baresip's ctrl_tcp: a JSON object in a netstring.
void command(const Network& network, int from, int to, const std::string& name, const std::string& parameters = {}) {
    const std::string text = "{\"command\":\"" + name + "\",\"params\":\"" + parameters + "\",\"token\":\"t\"}";
    RawPeer control(network.ue, RawPeer::Kind::tcp, std::string(Network::kUe4) + ":" + std::to_string(from),
                    std::string(Network::kUe4) + ":" + std::to_string(to));
    REQUIRE(control.connects(kPatience));
    control.send(std::to_string(text.size()) + ":" + text + ",");
    control.receive_until("\"response\":true");
}

}  // namespace

TEST_SUITE("kamailio") {
    TEST_CASE(
        "Kamailio 5.6 as a record-routing proxy between gateway and S-CSCF: AKA phones register, message and call, IPv4 and UDP") {
        Between between(start_kamailio, "icscf.cfg");
        check_between(between, {}, {});
    }

    TEST_CASE("Kamailio 5.6 as a record-routing proxy, reached over TCP; IPv6 and TCP to IPv4 and UDP") {
        Between between(start_kamailio, "icscf.cfg", "tcp");
        check_between(between, {true, true}, {});
    }

    TEST_CASE("Kamailio 5.6 as a record-routing proxy: SIPp calls SIPp over SAs, IPv4 and UDP") {
        Between between(start_kamailio, "icscf.cfg", "udp", sipp_users());
        INFO(between.kamailio->tail(60));
        check_sipp_calls(*between.lab, {}, sipp_calls({.calls = 40, .follows_routes = true}));
    }

    TEST_CASE("Kamailio 5.6 as a record-routing proxy, reached over TCP: SIPp calls SIPp over SAs, IPv6 and TCP") {
        Between between(start_kamailio, "icscf.cfg", "tcp", sipp_users());
        INFO(between.kamailio->tail(60));
        check_sipp_calls(*between.lab, {true, true}, sipp_calls({.calls = 40, .follows_routes = true}));
    }

    TEST_CASE("Kamailio 5.6 as registrar of digest users over TLS: two baresips register and one calls the other") {
        Registrar core;
        Lab& lab = *core.lab;
        const auto callee = core.baresip("bob", 4445, true);
        const auto caller = core.baresip("alice", 4444, false);
        INFO(core.kamailio->tail(60));
        INFO(lab.gateway_log());
        callee->wait_for_text("200 OK");
        caller->wait_for_text("200 OK");
        const auto stat = lab.network.gw.run("cat /proc/net/tls_stat");
        CHECK(stat.find("TlsCurrTxSw                     \t2") != std::string::npos);
        command(lab.network, 42444, 4444, "dial", std::string("sip:bob@") + kHomeDomain);
        caller->wait_for_text("Call established");
        callee->wait_for_text("Call established");  // that is: the ACK came, over its connection
        command(lab.network, 42445, 4444, "hangup");
        callee->wait_for_text("session closed");
        command(lab.network, 42446, 4445, "dial", std::string("sip:nobody@") + kHomeDomain);
        callee->wait_for_text("480");
        CHECK(lab.gateway().is_running());
    }
}

TEST_SUITE("kamailio-pcscf") {
    TEST_CASE(
        "Kamailio 6.0 as P-CSCF behind the gateway, with trust_bottom_via: it knows each phone by its Via; IPv4 and UDP") {
        Between between(start_kamailio6, "pcscf.cfg");
        check_between(between, {}, {});
        between.kamailio->wait_for_text("registered: INVITE of " + impu_of_user(0));  // found by bottom Via and Contact
    }

    TEST_CASE("Kamailio 6.0 as P-CSCF behind the gateway, reached over TCP: IPv4 and TCP to IPv6 and TCP") {
        Between between(start_kamailio6, "pcscf.cfg", "tcp");
        check_between(between, {false, true}, {true, true});
    }
}
