// A real systemd as the first process, with the real unit: restarts and kill -9 under load, sockets and connections
// through its fd store.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/integration/operator.h"
#include "tests/integration/tls_lab.h"

#ifndef GMGATE_UNIT
#error "GMGATE_UNIT: packaging/gmgated.service"
#endif

using namespace gmgate::test;

namespace {

/// systemd as process 1 of a process namespace, in the gateway's network namespace, with no unit but ours: the host's
/// services stay away.
class ServiceManager {
public:
    explicit ServiceManager(Lab& lab)
        : lab_(lab), units_(lab.folder() + "/units"), log_(lab.folder() + "/gmgated.log") {
        std::filesystem::create_directories(units_ + "/gmgated.service.d");
        std::filesystem::copy_file(GMGATE_UNIT, units_ + "/gmgated.service");
        std::ofstream(units_ + "/gmgate-test.target")
            << "[Unit]\nDescription=nothing but gmgated\nDefaultDependencies=no\n";
        // What differs from an installation: where the program and its files are, and that there is no other unit to
        // wait for.
        std::ofstream(units_ + "/gmgated.service.d/test.conf")
            << "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=\nExecStart=" << lab.programs().gmgated
            << " --config " << lab.config_path() << "\nExecReload=\nExecReload=" << lab.programs().gmgated
            << " --check-config --config " << lab.config_path()
            << "\nExecReload=/bin/kill -HUP $MAINPID\nStandardOutput=append:" << log_
            << "\nStandardError=append:" << log_ << "\nReadWritePaths=" << lab.folder()
            << "\nProtectHome=read-only\nUser=nobody\nGroup=nogroup\n";  // this machine has no gmgate
        // /var/lib is the host's: StateDirectory= gets one in memory.
        const auto start =
            "mount -t tmpfs tmpfs /var/lib && exec env -i container=gmgate-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=" +
            units_ +
            " SYSTEMD_GENERATOR_PATH=/nowhere /lib/systemd/systemd --system --unit=gmgate-test.target --log-target=console --log-level=notice --show-status=no";
        systemd_ = std::make_unique<Program>(ProgramOptions{
            .command = {"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", start},
            .name = "systemd",
            .network = &lab.network.gw});
        if (!eventually([&] { return std::filesystem::exists("/run/systemd/private"); }))
            throw std::runtime_error("systemd does not come up:\n" + systemd_->tail());
        std::filesystem::create_directories("/run/systemd/system");
    }
    void control(std::vector<std::string> words) {
        try {
            run_program({.command = command(std::move(words))});
        } catch (const std::exception& problem) {
            throw std::runtime_error(std::string(problem.what()) + "\n" + systemd_->tail() + "\n" + log());
        }
    }
    std::string property(const std::string& name) {
        return run_program({.command = command({"show", "--value", "--property=" + name, "gmgated.service"})});
    }
    std::string log() const {
        std::ifstream file(log_);
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    }
    /// How often it became ready.
    std::size_t starts() const {
        std::size_t count = 0;
        const auto text = log();
        for (auto at = text.find("gateway-ready"); at != std::string::npos; at = text.find("gateway-ready", at + 1))
            ++count;
        return count;
    }
    bool is_active() { return property("ActiveState").starts_with("active"); }

private:
    /// In its process namespace: systemd talks to nobody whose process it cannot see.
    std::vector<std::string> command(std::vector<std::string> words) const {
        const auto parent = std::to_string(systemd_->pid());
        std::ifstream children("/proc/" + parent + "/task/" + parent + "/children");
        std::string process;
        children >> process;
        std::vector<std::string> all{"nsenter", "--target", process, "--pid", "--mount", "systemctl"};
        all.insert(all.end(), words.begin(), words.end());
        return all;
    }
    Lab& lab_;
    std::string units_, log_;
    std::unique_ptr<Program> systemd_;
};

/// "10.1.0.2:40000 10.1.0.1:6100"
std::set<std::string> protected_connections(const Lab& lab) {
    std::set<std::string> found;
    std::istringstream lines(lab.network.ue.run("ss -Htn state established"));
    std::string received, sent, local, peer;
    while (lines >> received >> sent >> local >> peer)
        if (!peer.ends_with(":5060")) found.insert(local + " " + peer);
    return found;
}

void talk(Phone& a, Phone& b) {
    const auto word = unique_word("talk-");
    CHECK(a.message(b.impu(), word) == 200);
    b.await_message(word);
}

}  // namespace

TEST_SUITE("systemd") {
    TEST_CASE(
        "the real unit under a real systemd: restart and kill -9 under load; UDP, TCP and TLS phones notice nothing") {
        TlsLab tls({.users = 64, .is_gateway_started = false});
        auto& lab = *tls.lab;
        run_program({.command = {"chown", "-R", "nobody:nogroup", lab.folder(), tls.folder}});
        ServiceManager systemd(lab);
        systemd.control({"start", "gmgated.service"});
        CAPTURE(systemd.log());
        REQUIRE(systemd.starts() == 1);  // Type=notify: start returns when READY=1 has come
        CHECK(systemd.property("StatusText").starts_with("serving"));

        Phone udp(lab, {.user = 0}), tcp(lab, {.user = 1, .is_v6 = true, .is_tcp = true}),
            secure(lab, {.user = 2, .arguments = tls.phone_arguments("tls", "1.3")});
        udp.demand_registered();
        tcp.demand_registered();
        secure.demand_registered();
        talk(udp, tcp);
        talk(tcp, secure);
        talk(secure, tcp);
        const auto connections = protected_connections(lab);
        REQUIRE(connections.size() >= 2);
        // Others register all the while.
        lab.network.ue.ip_batch("address add 10.1.0.3/24 dev access0\naddress add 10.1.0.4/24 dev access0\n");
        Program load(
            {.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--addresses", "10.1.0.3+2",
                         "--index", "10", "--count", "40", "--rate", "2", "--hold", "300", "--json"},
             .name = "load",
             .network = &lab.network.ue});

        for (std::size_t round = 0; round < 4; ++round) {
            const auto mark = lab.core_mark();
            const bool kills = round % 2 == 1;
            const auto starts = systemd.starts();
            if (kills) systemd.control({"kill", "--signal=KILL", "gmgated.service"});
            else systemd.control({"restart", "gmgated.service"});
            REQUIRE(eventually([&] { return systemd.starts() == starts + 1 && systemd.is_active(); }));
            CAPTURE(systemd.log());
            talk(udp, tcp);
            talk(tcp, udp);
            talk(tcp, secure);
            talk(secure, udp);
            // A long message may have opened another one; those from before are all there.
            CHECK(std::ranges::includes(protected_connections(lab), connections));
            CHECK(tls.in_kernel(1));
            for (const auto& request : lab.core_received(mark, "REGISTER"))
                for (const std::size_t user : {0U, 1U, 2U})
                    CHECK(request.find(impi_of_user(user)) == std::string::npos);
        }
        // The packet tap works with what the unit leaves of root: it saw who sent in clear.
        Program in_clear({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--index", "3",
                                      "--clear", "--timeout", "40"},
                          .name = "gmue --clear",
                          .network = &lab.network.ue});
        nlohmann::json verdict;
        CHECK(eventually([&] { return (verdict = why(lab, 3))["verdict"] == "clear-to-protected"; }));
        CAPTURE(verdict.dump());
        CHECK(verdict["packet_tap"] == true);
        // A phone that leaves takes its descriptors out of the fd store.
        const auto stored = std::stoi(systemd.property("NFileDescriptorStore"));
        CHECK(stored > 0);
        secure.deregister();
        CHECK(eventually([&] { return std::stoi(systemd.property("NFileDescriptorStore")) < stored; }));
        load.terminate();
        CHECK(systemd.log().find("connections-resumed") != std::string::npos);
        // A file with a mistake: reload fails, the reason is in the log, and nothing changes; neither does a start
        // loop.
        systemd.control({"reload", "gmgated.service"});
        const auto process = systemd.property("MainPID");
        std::ofstream(lab.config_path(), std::ios::app) << "[timers]\nold-sett = 5\n";
        CHECK_THROWS(systemd.control({"reload", "gmgated.service"}));
        CHECK(systemd.log().find("did you mean \"old-set\"?") != std::string::npos);
        CHECK(systemd.property("MainPID") == process);
        talk(udp, tcp);
        systemd.control({"stop", "gmgated.service"});
        CHECK_THROWS(systemd.control({"start", "gmgated.service"}));
        CHECK(systemd.property("ActiveState").starts_with("failed"));
        CHECK(systemd.property("NRestarts").starts_with("0"));
    }
}
