// Keys for Wireshark: tshark reads what the phones of a lab said, and without the setting nobody gets a key.
#include <doctest/doctest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "tests/integration/operator.h"
#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

std::string export_keys_program() {
    const char* folder = std::getenv("GMGATE_TEST_PROGRAMS");
    return folder ? std::string(folder) + "/gmgate-export-keys" : GMGATE_EXPORT_KEYS;
}

std::string user_part(std::size_t user) {
    const auto impu = impu_of_user(user);
    return impu.substr(0, impu.find('@'));
}

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

bool is_for_owner_alone(const std::string& path) {
    using std::filesystem::perms;
    return (std::filesystem::status(path).permissions() & (perms::group_all | perms::others_all)) == perms::none;
}

/// gmgate-export-keys while it records: FOLDER/access.pcapng and FOLDER/esp_sa, a configuration folder for Wireshark.
struct Recording {
    explicit Recording(const Lab& lab)
        : folder(lab.folder()),
          program({.command = {export_keys_program(), "--config", lab.config_path(), "--pcapng", capture(), "--esp-sa",
                               folder + "/esp_sa"},
                   .name = "gmgate-export-keys",
                   .network = &lab.network.gw}) {
        program.wait_for_text("recording to");
    }
    std::string capture() const { return folder + "/access.pcapng"; }
    /// Ends it; what tshark sees of the INVITEs: "ADDRESS of the destination|From|protocols", one line each.
    std::string invites() {
        ::kill(program.pid(), SIGINT);
        CHECK(program.wait() == 0);
        if (const char* kept = std::getenv("GMGATE_SCREENS"))
            for (const auto* name : {"/access.pcapng", "/esp_sa"})
                std::filesystem::copy_file(folder + name, kept + std::string(name),
                                           std::filesystem::copy_options::overwrite_existing);
        return run_program({.command = {"env",    "WIRESHARK_CONFIG_DIR=" + folder,
                                        "tshark", "-n",
                                        "-o",     "esp.enable_encryption_decode:TRUE",
                                        "-o",     "esp.enable_authentication_check:TRUE",
                                        "-r",     capture(),
                                        "-Y",     "sip.Method == \"INVITE\"",
                                        "-T",     "fields",
                                        "-E",     "separator=|",
                                        "-e",     "ip.dst",
                                        "-e",     "ipv6.dst",
                                        "-e",     "sip.from.user",
                                        "-e",     "frame.protocols"},
                            .name = "tshark"},
                           {}, std::chrono::seconds(120));
    }
    std::string folder;
    Program program;
};

}  // namespace

TEST_SUITE("operate") {
    TEST_CASE(
        "keys for a lab: tshark reads an INVITE inside ESP of each algorithm pair, over IPv4 and IPv6, UDP and TCP") {
        constexpr Pair pairs[] = {kSha1AesCbc,   kSha1TripleDes, kSha1Null, kMd5AesCbc,
                                  kMd5TripleDes, kMd5Null,       kAesGcm,   kAesGmac};
        auto options = plain_lab();
        options.users = 17;
        options.profile_lines = "refuse-deprecated = false\n";
        options.more_sections = "[lab]\nexport-keys = true\n";
        Lab lab(options);
        CHECK(lab.gateway_log().find("keys-exported") != std::string::npos);
        CHECK(ask_gmctl(lab, {"status"})["keys_exported"] == true);
        CHECK(screen(lab, {"status"}).find("KEYS LEAVE") != std::string::npos);
        Recording recording(lab);
        Phone callee(lab, {.user = 16});
        callee.demand_registered();
        std::size_t user = 0;
        for (const auto& pair : pairs)
            for (const bool is_v6 : {false, true}) {
                INFO(pair.offer(), is_v6 ? " IPv6" : " IPv4");
                Phone caller(lab, {.user = user, .is_v6 = is_v6, .is_tcp = user % 4 >= 2, .offer = pair.offer()});
                caller.demand_registered();
                CHECK(caller.call(callee.impu()).value("event", "") == "call_ended");
                ++user;
            }
        const auto seen = recording.invites();
        INFO(seen);
        INFO(text_of(recording.folder + "/esp_sa"));
        for (user = 0; user < 16; ++user) {
            const Access access{.is_v6 = user % 2 == 1};
            const auto pair = pairs[user / 2].offer();
            INFO(pair, " to ", access.gateway());
            bool is_there = false;
            for (auto at = seen.begin(); at != seen.end();) {
                const auto end = std::find(at, seen.end(), '\n');
                const std::string line(at, end);
                at = end == seen.end() ? end : end + 1;
                is_there = is_there || (line.find(std::string(access.gateway()) + "|") != std::string::npos &&
                                        line.find("|" + user_part(user).substr(4) + "|") != std::string::npos &&
                                        line.find(":esp:") != std::string::npos);
            }
            CHECK(is_there);
        }
        CHECK(is_for_owner_alone(recording.capture()));
        CHECK(is_for_owner_alone(recording.folder + "/esp_sa"));
    }

    TEST_CASE("keys for a lab: tshark reads an INVITE inside TLS 1.3 and TLS 1.2 out of the capture alone") {
        TlsLab tls({.is_gateway_started = false});
        auto& lab = *tls.lab;
        const auto log = lab.folder() + "/tls-keys.log";
        std::ofstream(lab.config_path(), std::ios::app)
            << "[lab]\nexport-keys = true\ntls-key-log = \"" << log << "\"\n";
        lab.start_gateway();
        Recording recording(lab);
        Phone newer(lab, {.user = 0, .arguments = tls.phone_arguments("tls", "1.3")}),
            older(lab, {.user = 1, .is_v6 = true, .arguments = tls.phone_arguments("tls", "1.2")});
        newer.demand_registered();
        older.demand_registered();
        CHECK(newer.call(older.impu()).value("event", "") == "call_ended");
        const auto seen = recording.invites();
        INFO(seen);
        CHECK(seen.find(std::string(Network::kAccess4) + "|") != std::string::npos);  // TLS 1.3, to the gateway
        CHECK(seen.find(std::string(Network::kUe6) + "|") != std::string::npos);      // TLS 1.2, to the other phone
        CHECK(seen.find(":tls:sip") != std::string::npos);
        CHECK(is_for_owner_alone(log));
    }

    TEST_CASE(
        "support and trace --failed: the archive names no phone and has no key; the list names who failed and why") {
        auto options = plain_lab();
        options.log_level = "debug";
        Lab lab(options);
        Phone phone(lab, {});
        phone.demand_registered();
        RawRegister stranger;
        stranger.user = 3;
        stranger.security_client =
            "ipsec-3gpp;alg=hmac-sha-9;ealg=null;spi-c=70001;spi-s=70002;port-c=7901;port-s=7902";
        CHECK(status_of(ask(lab, stranger)) == 494);
        const auto failed = ask_gmctl(lab, {"trace", "--failed"})["failed"];
        INFO(failed.dump(1));
        REQUIRE(failed.size() == 1);
        CHECK(failed[0]["impi"] == impi_of_user(3));
        CHECK(failed[0]["answer"] == 494);
        CHECK(screen(lab, {"trace", "--failed"}).find("494") != std::string::npos);

        // Nobody had switched a trace on: the messages are there all the same, of the call that failed as well.
        const auto recorded = ask_gmctl(lab, {"trace", impi_of_user(3)});
        INFO(recorded.dump(1));
        CHECK(recorded["state"] == "switched on now");
        REQUIRE(recorded["messages"].size() == 2);
        CHECK(recorded["messages"][0]["bytes"].get<std::string>().find("hmac-sha-9") != std::string::npos);
        CHECK(recorded["messages"][1]["bytes"].get<std::string>().starts_with("SIP/2.0 494 "));
        CHECK(phone.call(impu_of_user(5)).value("event", "") != "call_ended");
        const auto kept = ask_gmctl(lab, {"trace", "--failed"})["kept"];
        INFO(kept.dump(1));
        REQUIRE(kept.size() == 2);
        CHECK(kept[0]["method"] == "INVITE");
        CHECK(kept[0]["who"] == impi_of_user(0));
        CHECK(kept[0]["answer"].get<int>() >= 400);
        const auto ladder = screen(lab, {"trace", "--call", kept[0]["call_id"].get<std::string>()});
        INFO(ladder);
        CHECK(ladder.find("INVITE, ESP set") != std::string::npos);
        CHECK(ladder.find("REGISTER") == std::string::npos);  // that of the same phone succeeded, and is not kept
        ask_gmctl(lab, {"trace", impi_of_user(0)});
        phone.reregister(false);
        CHECK(screen(lab, {"trace", "--text", impi_of_user(0)}).find("phone -> gateway") != std::string::npos);
        CHECK(screen(lab, {"trace", "--mermaid", impi_of_user(0)}).starts_with("sequenceDiagram\n"));

        const auto log = lab.folder() + "/gateway.log", archive = lab.folder() + "/report.tar";
        std::ofstream(log) << lab.gateway_log();
        screen(lab, {"support", "--output", archive, "--log", log});
        CHECK(is_for_owner_alone(archive));
        const auto text = text_of(archive);
        for (const auto* wanted : {"\"keys_exported\": false", "register ", "\"hops\"", "XfrmInNoStates", "gmgated 0",
                                   "[core]", "security-client"})
            CHECK_MESSAGE(text.find(wanted) != std::string::npos, wanted);
        CHECK(text.find("00101000") == std::string::npos);  // IMSIs
        CHECK(text.find(Network::kUe4) == std::string::npos);
        const auto sas = lab.network.gw.run("ip xfrm state");
        std::size_t keys = 0;
        for (auto at = sas.find(" 0x"); at != std::string::npos; at = sas.find(" 0x", at + 1)) {
            const auto key = sas.substr(at + 3, sas.find_first_of(" \n", at + 3) - at - 3);
            if (key.size() < 32) continue;
            ++keys;
            CHECK(text.find(key) == std::string::npos);
        }
        CHECK(keys >= 4);
    }

    TEST_CASE("keys: without the setting not even root's tool gives one, and a reload does not open the door") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        Program tool({.command = {export_keys_program(), "--config", lab.config_path()},
                      .name = "gmgate-export-keys",
                      .network = &lab.network.gw});
        CHECK(tool.wait() == 2);
        const auto said = tool.lines();
        REQUIRE(said.size() == 1);
        CHECK(said[0].find("[lab] export-keys = true") != std::string::npos);
        std::ofstream(lab.config_path(), std::ios::app) << "[lab]\nexport-keys = true\n";
        const auto report = ask_gmctl(lab, {"reload"});
        REQUIRE(report["refused"].size() == 1);
        CHECK(report["refused"][0]["key"] == "lab.export-keys");
        CHECK(ask_gmctl(lab, {"status"})["keys_exported"] == false);
        // The file says so now, and the kernel gives root its keys: one line for each SA.
        const auto table = run_program({.command = {export_keys_program(), "--config", lab.config_path()},
                                        .name = "gmgate-export-keys",
                                        .network = &lab.network.gw});
        CHECK(table.find("\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x") != std::string::npos);
    }
}
