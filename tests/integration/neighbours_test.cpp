// strongSwan's charon on the gateway's machine, with an IKEv2 tunnel towards the core: neither flushes, shadows nor
// adopts what is the other's. The real daemon of Debian, started and stopped under traffic.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

constexpr std::uint32_t kOurReqid = 21321;

/// One end of the tunnel. A pre-shared key; the gateway's end installs a trap policy, so that the first packet to the
/// core starts IKE.
class Charon {
public:
    Charon(const Namespace& network, const std::string& folder, const std::string& name, const std::string& own,
           const std::string& other, bool starts)
        : network_(network), base_(folder + "/" + name) {
        std::ofstream(base_ + ".strongswan.conf")
            << "charon-systemd {\n load = random nonce openssl kdf hmac sha1 sha2 aes pem kernel-netlink socket-default vici\n"
               " install_routes = no\n install_virtual_ip = no\n journal { default = -1 }\n filelog { out { path = "
            << base_
            << ".log\n default = 1\n flush_line = yes } }\n"
               " plugins { vici { socket = "
            << uri() << " } }\n}\n";
        std::ofstream(base_ + ".swanctl.conf")
            << "connections { za { version = 2\n local_addrs = " << own << "\n remote_addrs = " << other
            << "\n proposals = aes128-sha256-ecp256\n"
            << " local { auth = psk\n id = " << own << " }\n remote { auth = psk\n id = " << other << " }\n"
            << " children { za { local_ts = " << own << "/32\n remote_ts = " << other
            << "/32\n mode = tunnel\n esp_proposals = aes128-sha1\n"
            << " start_action = " << (starts ? "trap" : "none") << " } } } }\n"
            << "secrets { ike-1 { id-1 = " << own << "\n id-2 = " << other << "\n secret = \"between-the-two\" } }\n";
        program_.emplace(ProgramOptions{
            .command = {"env", "STRONGSWAN_CONF=" + base_ + ".strongswan.conf", "/usr/sbin/charon-systemd"},
            .name = "charon " + name,
            .network = &network_});
    }
    /// True as soon as it answers.
    bool is_ready() {
        if (!program_->is_running()) throw std::runtime_error("charon ended:\n" + program_->tail());
        return std::filesystem::exists(base_ + ".vici");
    }
    void load() { control({"--load-all", "--file", base_ + ".swanctl.conf"}); }
    std::string list() { return control({"--list-sas"}); }
    int stop() { return program_->terminate(); }
    std::string log() const {
        std::ifstream file(base_ + ".log");
        return {std::istreambuf_iterator<char>(file), {}};
    }

private:
    std::string uri() const { return "unix://" + base_ + ".vici"; }
    std::string control(std::vector<std::string> words) {
        std::vector<std::string> command{"env", "STRONGSWAN_CONF=" + base_ + ".strongswan.conf", "/usr/sbin/swanctl"};
        command.insert(command.end(), words.begin(), words.end());
        command.insert(command.end(), {"--uri", uri()});
        return run_program({.command = command, .network = &network_});
    }
    const Namespace& network_;
    std::string base_;
    std::optional<Program> program_;
};

struct Neighbourhood {
    Lab lab{plain_lab()};
    Capture link{lab.network.ue, Network::kUeLink};
    Phone four{lab, {.user = 0, .offer = kSha1AesCbc.offer()}};
    Phone six{lab, {.user = 1, .is_v6 = true, .is_tcp = true}};
    std::vector<std::string> markers;

    Neighbourhood() {
        four.demand_registered();
        six.demand_registered();
    }
    /// A MESSAGE each way; returns the words, to look for elsewhere.
    std::vector<std::string> talk() {
        std::vector<std::string> words;
        for (auto [from, to] : {std::pair{&four, &six}, std::pair{&six, &four}}) {
            const auto& word = markers.emplace_back(unique_word("next-door-"));
            words.push_back(word);
            CHECK(from->message(to->impu(), word) == 200);
            to->await_message(word);
        }
        return words;
    }
    /// Talks until something has happened, at least once.
    bool talk_until(const std::function<bool()>& condition) {
        for (int i = 0; i < 60; ++i) {
            talk();
            if (condition()) return true;
        }
        return false;
    }
    std::set<std::uint32_t> spis(bool ours) const {
        std::set<std::uint32_t> all;
        for (const auto& sa : list_sas(lab.network.gw))
            if ((sa.reqid == kOurReqid) == ours && (ours || sa.mode == "tunnel")) all.insert(sa.spi);
        return all;
    }
    std::uint64_t packets_next_door() const {
        std::uint64_t packets = 0;
        for (const auto& sa : list_sas(lab.network.gw))
            if (sa.reqid != kOurReqid && sa.mode == "tunnel") packets += sa.packets;
        return packets;
    }
    std::vector<std::string> our_policies() const {
        auto policies = list_policies(lab.network.gw);
        std::erase_if(policies, [](const std::string& text) { return text.find("reqid 21321") == std::string::npos; });
        std::ranges::sort(policies);
        return policies;
    }
    void check_undisturbed() const {
        const auto log = lab.gateway_log();
        for (const char* id : {"sa-lost", "guards-missing", "kernel-audit ", "foreign-sas"})
            CHECK(log.find(id) == std::string::npos);
    }
};

}  // namespace

TEST_SUITE("neighbours") {
    TEST_CASE(
        "charon with a tunnel to the core, started and stopped under traffic: neither touches what is the other's") {
        Neighbourhood street;
        Lab& lab = street.lab;
        street.talk();
        const auto ours = street.spis(true);
        const auto policies = street.our_policies();
        CHECK(ours.size() == 8);
        CHECK(policies.size() == 24);

        // It comes up while the phones talk.
        Charon core(lab.network.core, lab.folder(), "core", Network::kCore4, Network::kGwCore4, false);
        Charon gate(lab.network.gw, lab.folder(), "gate", Network::kGwCore4, Network::kCore4, true);
        REQUIRE(street.talk_until([&] { return core.is_ready() && gate.is_ready(); }));
        core.load();
        gate.load();
        REQUIRE(street.talk_until([&] { return gate.list().find("INSTALLED") != std::string::npos; }));
        INFO(gate.log());
        CHECK(street.spis(true) == ours);
        CHECK(street.our_policies() == policies);
        const auto theirs = street.spis(false);
        CHECK(theirs.size() == 2);

        // The core leg goes through its tunnel, the access side through our SAs.
        {
            // What goes out; a tunnel's inbound packets pass the listener a second time, decrypted.
            Capture core_link(lab.network.gw, "core");
            const auto is_ours = [](const Frame& frame) { return frame.source() == Network::kGwCore4; };
            const auto before = street.packets_next_door();
            for (const auto& word : street.talk())
                CHECK(core_link.count([&](const Frame& frame) { return is_ours(frame) && frame.contains(word); }) == 0);
            CHECK(street.packets_next_door() > before);
            CHECK(core_link.count([&](const Frame& frame) { return is_ours(frame) && frame.is_esp(); }) > 0);
        }
        street.check_undisturbed();

        // A restart of the gateway neither adopts nor removes its SAs and policies.
        lab.kill_gateway();
        lab.start_gateway();
        CHECK(street.spis(false) == theirs);
        CHECK(street.spis(true) == ours);
        street.talk();

        // It listens for ACQUIRE: what leaves a protected port without an SA (here a TCP reset of our kernel) makes a
        // larval SA, and that harms nobody.
        const auto carrier =
            find_sa(gateway_sas(lab, {true, true}), false, true);  // port_ps → port_uc, of the phone's connection
        lab.network.gw.ip_batch("xfrm state delete src " + carrier.source + " dst " + carrier.destination +
                                " proto esp spi " + std::to_string(carrier.spi) + "\n");
        CHECK(eventually([&] { return lab.gateway_log().find("registration-ended") != std::string::npos; }));
        const auto again = street.six.command("register", [](const nlohmann::json& e) {
            return e.value("event", "") == "registered" || e.value("event", "") == "register_failed";
        });
        CHECK(again.value("event", "") == "registered");
        street.talk();
        street.four.reregister(true);
        street.talk();
        CHECK(street.spis(false) == theirs);
        CHECK_MESSAGE(gate.log().find("unable to acquire reqid 21321") != std::string::npos, gate.log());

        // It goes while the phones talk, and takes only its own along.
        const auto before_stop = street.spis(true);
        CHECK(gate.stop() == 0);
        REQUIRE(street.talk_until([&] { return street.spis(false).empty(); }));
        for (const auto spi : before_stop) CHECK(street.spis(true).contains(spi));
        CHECK(street.our_policies() == policies);
        CHECK(core.stop() == 0);
        street.talk();
        for (const auto& word : street.markers) CHECK(street.link.find(word).empty());
        CHECK(lab.stop_gateway() == 0);
    }
}
