// gmctl against the running gateway, and each verdict of `gmctl why` produced by its fault while healthy phones and the
// other faults run.
#include <doctest/doctest.h>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "tests/integration/operator.h"

using namespace gmgate::test;
using Json = nlohmann::json;

namespace {

void check_verdict(const Lab& lab, std::size_t user, const std::string& verdict, const std::string& words,
                   std::chrono::seconds patience = kPatience) {
    Json last;
    const bool found = eventually([&] { return (last = why(lab, user))["verdict"] == verdict; }, patience);
    INFO("user ", user, ": ", last.dump(1));
    CHECK(found);
    CHECK(last["paragraph"].get<std::string>().find(words) != std::string::npos);
    screen(lab, {"why", impi_of_user(user)});
}

std::unique_ptr<Program> start_phone(Lab& lab, std::size_t user, std::vector<std::string> more,
                                     const std::string& gateway = Network::kAccess4) {
    std::vector<std::string> command{lab.programs().gmue, "register",           "--gateway", gateway,
                                     "--index",           std::to_string(user), "--timeout", "40"};
    command.insert(command.end(), more.begin(), more.end());
    return std::make_unique<Program>(
        ProgramOptions{.command = command, .name = "gmue " + std::to_string(user), .network = &lab.network.ue});
}

/// An address translation for UDP: what comes to `inside` goes on to the gateway's port 5060 from another address, and
/// back.
class Translator {
public:
    Translator(const Namespace& network, const std::string& address) {
        network.enter([&] {
            inside_ = bound(address, 5060);
            outside_ = bound(address, 40000);
        });
        thread_ = std::thread([this] { run(); });
    }
    ~Translator() {
        stop_ = true;
        thread_.join();
        close(inside_);
        close(outside_);
    }

private:
    static int bound(const std::string& address, std::uint16_t port) {
        const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        sockaddr_storage to{};
        const auto length = gmgate::Endpoint{*gmgate::Address::parse(address), gmgate::Port{port}}.to_sockaddr(to);
        if (bind(fd, reinterpret_cast<const sockaddr*>(&to), length) != 0)
            throw std::runtime_error("the translator cannot bind");
        return fd;
    }
    void run() {
        sockaddr_storage gateway{}, phone{};
        const auto gateway_length =
            gmgate::Endpoint{*gmgate::Address::parse(Network::kAccess4), gmgate::Port{5060}}.to_sockaddr(gateway);
        socklen_t phone_length = 0;
        char buffer[65536];
        while (!stop_) {
            pollfd fds[] = {{inside_, POLLIN, 0}, {outside_, POLLIN, 0}};
            if (poll(fds, 2, 100) <= 0) continue;
            if (fds[0].revents != 0) {
                phone_length = sizeof phone;
                const auto n =
                    recvfrom(inside_, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&phone), &phone_length);
                if (n > 0)
                    sendto(outside_, buffer, static_cast<std::size_t>(n), 0,
                           reinterpret_cast<const sockaddr*>(&gateway), gateway_length);
            }
            if (fds[1].revents != 0) {
                const auto n = recv(outside_, buffer, sizeof buffer, 0);
                if (n > 0 && phone_length != 0)
                    sendto(inside_, buffer, static_cast<std::size_t>(n), 0, reinterpret_cast<const sockaddr*>(&phone),
                           phone_length);
            }
        }
    }
    int inside_ = -1, outside_ = -1;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

/// The phone's outbound SAs begin to count at 1 again: deleted, and added as they were.
void restart_sequence_numbers(const Namespace& network, const Phone& phone) {
    std::istringstream states(network.run("ip xfrm state list src " + std::string(Network::kUe4)));
    std::vector<std::string> entries;
    for (std::string line; std::getline(states, line);) {
        if (line.starts_with("src ")) entries.emplace_back();
        if (!entries.empty() && line.find("anti-replay") == std::string::npos) entries.back() += line + ' ';
    }
    std::string batch;
    for (const auto& entry : entries) {
        const auto of_this_phone = [&](const char* port) {
            return entry.find("sport " + std::to_string(phone.first().value(port, 0)) + " ") != std::string::npos;
        };
        if (!of_this_phone("port_us") && !of_this_phone("port_uc")) continue;
        const auto spi = entry.find("spi 0x");
        batch += "xfrm state delete src " + std::string(Network::kUe4) + " dst " + std::string(Network::kAccess4) +
                 " proto esp spi " + entry.substr(spi + 4, 10) + "\nxfrm state add " + entry + "\n";
    }
    CAPTURE(batch);
    network.ip_batch(batch);
}

/// A phone whose fault is of its own making: gmue's options beyond user and gateway, and what `why` says of it.
struct Fault {
    std::size_t user;
    std::vector<std::string> arguments;
    std::string verdict, words;
    std::string gateway = Network::kAccess4;
};

std::vector<Fault> faults() {
    return {
        {0, {"--no-esp"}, "no-answer", "the phone sent no ESP packet"},
        {1,
         {"--wrong-ik", "--offer", "hmac-sha-1-96/aes-cbc"},
         "integrity",
         "failed the integrity check on these SAs: the phone derived other keys"},
        {2, {"--clear"}, "clear-to-protected", "It sends in clear to the protected port"},
        {3, {"--wrong-res"}, "wrong-res", "the RES in its digest response is wrong"},
        {5, {"--local", Network::kUe4}, "nat", "it is behind NAT", "10.1.0.9"},
        {6, {"--offer", "hmac-md5-96/aes-cbc"}, "algorithms", "it offers only what this interface does not allow"},
        {7, {"--bid-down", "3"}, "verify-mismatch", "Security-Verify is not what was sent"},
        {8, {"--bid-down", "1"}, "client-mismatch", "its Security-Client has changed since the challenge"},
        {9, {"--security", "none"}, "no-offer", "it sends no Security-Client and this interface demands an agreement"},
        {10,
         {"--add-register-header", "Proxy-Require: mediasec"},
         "option-refused",
         "Proxy-Require names mediasec, which this interface refuses"},
        {11, {"--answer-as", impi_of_user(19)}, "identity-mismatch", "The SAs belong to another private identity"},
        {12, {"--add-register-header", "X-Gmcore-Do: omit-keys"}, "no-keys", "carries no ck and ik"},
        {13, {"--add-register-header", "X-Gmcore-Do: refuse=404"}, "declined", "The core declined the REGISTER"},
        {16, {"--spi-uc", "33331", "--spi-us", "33332"}, "kernel", "an SPI of the phone is in use at its address"},
        {17, {"--security-client", "ipsec-3gpp; alg=\""}, "bad-request", "The REGISTER itself is wrong"}};
}

/// Somebody else's SA at the SPI that a phone will ask for.
void occupy(Lab& lab) {
    lab.network.gw.ip_batch("xfrm state add src " + std::string(Network::kAccess4) + " dst " +
                            std::string(Network::kUe4) +
                            " proto esp spi 33332 reqid 77 mode transport auth-trunc hmac(md5) "
                            "0x000102030405060708090a0b0c0d0e0f 96 enc ecb(cipher_null) \"\"\n");
}

std::size_t healthy_count() {
    const char* more = std::getenv("GMGATE_HEALTHY_PHONES");
    return more != nullptr ? static_cast<std::size_t>(std::atoi(more)) : 10;
}

}  // namespace

TEST_SUITE("operate") {
    TEST_CASE("each fault gets its own verdict while healthy phones and the other faults are running") {
        const auto healthy = healthy_count();
        constexpr std::size_t kFirstHealthy = 30;
        auto options = plain_lab();
        options.interface_lines = "refuse-mediasec = true\n";
        options.users = kFirstHealthy + healthy;
        options.profile_lines = "refuse-deprecated = true\n";
        Lab lab(options);
        lab.network.ue.ip_batch("address add 10.1.0.9/16 dev access0\n");
        Translator translator(lab.network.ue, "10.1.0.9");

        Program crowd({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--index",
                                   std::to_string(kFirstHealthy), "--count", std::to_string(healthy), "--rate", "20",
                                   "--hold", "600", "--json"},
                       .name = "gmue crowd",
                       .network = &lab.network.ue});
        crowd.wait_for_text("\"phase\":\"register\"", 0, std::chrono::minutes(3));

        PhoneOptions first_options;
        first_options.user = 4;
        Phone stale(lab, first_options);
        stale.demand_registered();
        CHECK(ask_gmctl(lab, {"deregister", impi_of_user(4)})["sets"] == 1);

        Phone replaying(lab, {.user = 15, .offer = kSha1AesCbc.offer(), .arguments = {}});
        replaying.demand_registered();
        for (int i = 0; i < 4; ++i) CHECK(replaying.message(replaying.impu(), "counts") == 200);
        occupy(lab);

        std::vector<std::unique_ptr<Program>> faulty;
        const auto all = faults();
        for (const auto& fault : all) faulty.push_back(start_phone(lab, fault.user, fault.arguments, fault.gateway));
        stale.start_message(stale.impu(), "over-a-stale-sa");
        restart_sequence_numbers(lab.network.ue, replaying);
        for (int i = 0; i < 4; ++i) replaying.start_message(replaying.impu(), "counted-before");

        // Both pass with time: the core that has still to answer (32 s), the phone that has still to (10 s; on a slow
        // machine it asks again).
        const auto unanswered = start_phone(lab, 18, {"--add-register-header", "X-Gmcore-Do: silent"});
        check_verdict(lab, 18, "core-pending", "was passed to the core, which has not answered");
        CHECK(eventually([&] {
            RawRegister first;
            first.user = 21;
            first.port = 5200;
            first.security_client =
                SecurityClient{.spi_c = 60001, .spi_s = 60002, .port_c = 7901, .port_s = 7902}.text();
            return status_of(ask(lab, first)) == 401 && why(lab, 21)["verdict"] == "waiting";
        }));
        screen(lab, {"why", impi_of_user(21)});
        for (const auto& fault : all)
            if (fault.verdict != "no-answer") check_verdict(lab, fault.user, fault.verdict, fault.words);
        check_verdict(lab, 19, "identity-mismatch",
                      "The SAs belong to another private identity");  // whom the phone names
        check_verdict(lab, 15, "replay", "were replays or came too late for the replay window");
        check_verdict(lab, 4, "stale-sa", "a stale SA of this phone's earlier registration");
        check_verdict(lab, 0, "no-answer", "the phone sent no ESP packet");
        check_verdict(lab, 20, "unknown-phone", "No REGISTER of");
        for (std::size_t i = 0; i < healthy; ++i) {
            const auto verdict = why(lab, kFirstHealthy + i);
            INFO(verdict.dump(1));
            CHECK(verdict["verdict"] == "registered");
        }
        screen(lab, {"why", impi_of_user(kFirstHealthy)});
        check_verdict(lab, 18, "core-unreachable", "the core does not answer",
                      std::chrono::seconds(180));  // after 64*T1
    }

    TEST_CASE("a phone that is refused because a limit is reached: why says which") {
        auto options = plain_lab();
        options.more_sections = "[limits]\nregistrations = 1\n";
        Lab lab(options);
        Phone one(lab, {});
        one.demand_registered();
        const auto refused = start_phone(lab, 14, {});
        check_verdict(lab, 14, "limit", "the limit of registrations is reached");
    }

    TEST_CASE("gmctl trace: the registration and what follows as ladder, page and pcap, with no key in any of them") {
        Lab lab(plain_lab());
        CHECK(ask_gmctl(lab, {"trace", impi_of_user(0)})["state"] == "switched on now");
        Program follower(
            {.command = gmctl_command(lab, {"trace", impi_of_user(0), "--follow"}), .name = "gmctl trace --follow"});
        PhoneOptions options;
        Phone phone(lab, options);
        phone.demand_registered();
        options.user = 1;
        Phone other(lab, options);
        other.demand_registered();
        const auto word = unique_word("traced-");
        CHECK(phone.message(other.impu(), word) == 200);
        other.await_message(word);
        CHECK(other.message(other.impu(), "not-to-be-seen") == 200);
        follower.wait_for_text("MESSAGE, ESP set");

        const auto page = lab.folder() + "/trace.html", pcap = lab.folder() + "/trace.pcap";
        const auto drawn = screen(lab, {"trace", impi_of_user(0), "--html", page, "--pcap", pcap});
        INFO(drawn);
        for (const auto* part : {"REGISTER, clear", "401 Unauthorized, clear", "REGISTER, ESP set", "200 OK, ESP set",
                                 "MESSAGE, ESP set", "other phone", "+"})
            CHECK(drawn.find(part) != std::string::npos);
        const auto messages = ask_gmctl(lab, {"trace", impi_of_user(0)})["messages"];
        REQUIRE(messages.size() >= 12);  // two REGISTERs and a MESSAGE, each as request and answer on both legs
        std::string all;
        for (const auto& message : messages) all += message["bytes"].get<std::string>();
        CHECK(all.find(word) != std::string::npos);
        CHECK(all.find("not-to-be-seen") == std::string::npos);

        // What the core put into its 401 and the phone into its answer: in none of the outputs.
        std::ifstream page_file(page), pcap_file(pcap);
        all += drawn + std::string(std::istreambuf_iterator<char>(page_file), {}) +
               std::string(std::istreambuf_iterator<char>(pcap_file), {});
        std::size_t secrets = 0;
        for (const auto& event : lab.core_log()) {
            const auto text = event.dump();
            for (const auto& key : std::vector<std::string>{"ck=\\\"", "ik=\\\"", "response=\\\""})
                for (auto at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
                    const auto value = text.substr(at + key.size(), 32);
                    if (value.find_first_not_of("0123456789abcdef") != std::string::npos) continue;
                    ++secrets;
                    CHECK(all.find(value) == std::string::npos);
                }
        }
        CHECK(secrets >= 3);
        if (const char* folder = std::getenv("GMGATE_SCREENS")) {
            std::ofstream(std::string(folder) + "/trace.html") << std::ifstream(page).rdbuf();
            std::ofstream(std::string(folder) + "/trace.pcap") << std::ifstream(pcap).rdbuf();
        }
        CHECK(ask_gmctl(lab, {"trace", impi_of_user(0), "--off"})["state"] == "off");
    }

    TEST_CASE("/metrics, /healthz and /readyz of the running gateway") {
        auto options = plain_lab();
        options.top_lines = "metrics-listen = \"127.0.0.1:9464\"\n";
        Lab lab(options);
        Phone phone(lab, {});
        phone.demand_registered();
        const auto get = [&](const std::string& path) { return monitoring_page(lab, path); };
        CHECK(get("/healthz").starts_with("200 ok"));
        CHECK(get("/readyz").starts_with("200 ready"));
        const auto metrics = get("/metrics");
        INFO(metrics);
        for (const auto* line :
             {"gmgate_registered_total 1\n", "gmgate_challenge_tx_total 1\n",
              "gmgate_registrations{mechanism=\"ipsec-3gpp\"} 1\n", "gmgate_sa_sets{state=\"established\"} 1\n",
              "gmgate_guards_stand 1\n", "gmgate_xfrm_total{name=\"XfrmInNoStates\"} 0\n"})
            CHECK_MESSAGE(metrics.find(line) != std::string::npos, line);
        ask_gmctl(lab, {"drain"});
        CHECK(get("/readyz").starts_with("503 draining"));
        CHECK(get("/healthz").starts_with("200 ok"));
    }

    TEST_CASE("gmctl: status, registrations, show, kernel, top, drain, log-level, reload, deregister") {
        Lab lab(plain_lab());
        PhoneOptions options;
        Phone phone(lab, options);
        phone.demand_registered();
        const auto status = ask_gmctl(lab, {"status"});
        INFO(status.dump(1));
        CHECK(status["registrations"]["ipsec_3gpp"] == 1);
        CHECK(status["sets"]["established"] == 1);
        CHECK(status["guards_stand"] == true);
        CHECK(status["counters"]["registered"] == 1);
        CHECK(screen(lab, {"status"}).find("1 over ipsec-3gpp") != std::string::npos);

        const auto rows = ask_gmctl(lab, {"registrations"})["registrations"];
        REQUIRE(rows.size() == 1);
        CHECK(rows[0]["impi"] == impi_of_user(0));
        CHECK(ask_gmctl(lab, {"registrations", "no-such-phone"})["registrations"].empty());
        screen(lab, {"registrations"});

        // By IMPI, IMPU and address, with the counters that `ip xfrm state` shows.
        for (const auto& of : {impi_of_user(0), impu_of_user(0), std::string(Network::kUe4)}) {
            const auto shown = ask_gmctl(lab, {"show", of});
            INFO(shown.dump(1));
            REQUIRE(shown["contacts"].size() == 1);
            const auto& sas = shown["contacts"][0]["sets"][0]["sas"];
            REQUIRE(sas.size() == 4);
            for (const auto& kernel_sa : list_sas(lab.network.gw))
                for (const auto& sa : sas)
                    if (sa["spi"] == kernel_sa.spi) CHECK(sa["packets"] == kernel_sa.packets);
        }
        screen(lab, {"show", std::string(Network::kUe4)});
        const auto kernel = ask_gmctl(lab, {"kernel", "--audit"});
        CHECK(kernel["audit"]["sas"] == 4);
        CHECK(kernel["guards"].size() == list_policies(lab.network.gw).size());
        for (const auto& guard : kernel["guards"]) CHECK_MESSAGE(guard["in_kernel"] == true, guard.dump());
        for (const auto& statistic : kernel["xfrm_stat"]) CHECK_MESSAGE(statistic["means"] != "", statistic.dump());
        screen(lab, {"kernel", "--audit"});
        CHECK(screen(lab, {"top", "--once"}).find("registrations 1") != std::string::npos);

        Program follower(
            {.command = gmctl_command(lab, {"--json", "registrations", "--follow"}), .name = "gmctl --follow"});
        CHECK(eventually([&] {
            phone.reregister(false);
            return follower.has_text("refreshed");
        }));

        CHECK(ask_gmctl(lab, {"log-level", "notice"})["before"] == "debug");
        CHECK(ask_gmctl(lab, {"log-level"})["level"] == "notice");
        CHECK(ask_gmctl(lab, {"drain"})["state"] == "draining");
        RawRegister second;
        second.user = 1;
        second.security_client = SecurityClient{}.text();
        CHECK(status_of(ask(lab, second)) == 503);
        phone.reregister(true);  // goes on
        CHECK(ask_gmctl(lab, {"drain", "--off"})["state"] == "serving");
        second.call_id = unique_word("again-");
        CHECK(status_of(ask(lab, second)) == 401);

        std::ofstream(lab.config_path(), std::ios::app) << "[timers]\nreg-await-auth = 60\n[xfrm]\nreqid = 7\n";
        const auto reload = ask_gmctl(lab, {"reload"});
        INFO(reload.dump(1));
        REQUIRE(reload["applied"].size() == 1);
        CHECK(reload["applied"][0]["key"] == "timers.reg-await-auth");
        REQUIRE(reload["refused"].size() == 1);
        CHECK(reload["refused"][0]["key"] == "xfrm.reqid");
        screen(lab, {"reload"});
        std::ofstream(lab.config_path(), std::ios::app) << "nonsense\n";
        const auto mark = lab.gateway().line_count();
        kill(lab.gateway().pid(), SIGHUP);
        lab.gateway().wait_for_text("reload-refused", mark);  // and lives on

        CHECK(ask_gmctl(lab, {"deregister", impi_of_user(0)})["contacts"] == 1);
        CHECK(eventually([&] { return ask_gmctl(lab, {"status"})["registrations"]["ipsec_3gpp"] == 0; }));
        CHECK(lab.stop_gateway() == 0);
    }

    TEST_CASE("gmgated goes on when whoever reads its log has gone: phones register and talk, and it ends in order") {
        LabOptions options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        const auto pipe = lab.folder() + "/log";  // sed ends behind the line
        const auto script = "mkfifo " + pipe + "; sed '/gateway-ready/q' <" + pipe + " & exec " +
                            lab.programs().gmgated + " --config " + lab.config_path() + " >" + pipe + " 2>&1";
        Program gateway({.command = {"/bin/sh", "-c", script}, .name = "gmgated", .network = &lab.network.gw});
        gateway.wait_for_text("gateway-ready");
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        const auto text = unique_word("unread-");
        CHECK(phone.message(phone.impu(), text) == 200);
        phone.await_message(text);
        phone.deregister();
        CHECK(gateway.terminate() == 0);
    }
}
