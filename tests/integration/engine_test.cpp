// The SA engine in a process of its own: who holds which rights, what a gmgated that was taken over can make it do
// (nothing), and its death.
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rights.h"
#include "tests/integration/scene.h"
#include "tests/support/guardian.h"
#include "xfrm/engine/frames.h"

using namespace gmgate::test;
namespace xfrm = gmgate::xfrm;

namespace {

std::string status_line(pid_t process, const std::string& key) {
    std::ifstream file("/proc/" + std::to_string(process) + "/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(key + ":")) return line.substr(line.find_last_of(" \t") + 1);
    return "no such process";
}

long resident_kib(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/status");
    for (std::string word; file >> word;)
        if (long size = 0; word == "VmRSS:" && file >> size) return size;
    return 0;
}

pid_t child_of(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/task/" + std::to_string(process) + "/children");
    pid_t child = 0;
    file >> child;
    return child;
}

constexpr const char* kNone = "0000000000000000";
constexpr const char* kNetAdmin = "0000000000001000";

/// What the kernel has, without counters and times.
std::string kernel_state(const Namespace& network) {
    return network.run("ip xfrm state list nokeys") + network.run("ip xfrm policy");
}

/// gmgate-xfrmd with somebody else at gmgated's end of its sockets.
class Forger {
public:
    explicit Forger(const Lab& lab) {
        const std::string program =
            lab.programs().gmgated.substr(0, lab.programs().gmgated.rfind('/') + 1) + "gmgate-xfrmd";
        xfrm::EngineConfiguration configuration;
        configuration.owner = {.reqid = gmgate::ReqId{21321}, .mark_mask = 0x00ffffff};
        configuration.ports = {{*gmgate::Address::parse(Network::kAccess4), gmgate::Port{6100}, gmgate::Port{6101}},
                               {*gmgate::Address::parse(Network::kAccess4), gmgate::Port{6200}, gmgate::Port{6203}}};
        configuration_ = xfrm::configuration_frames(configuration)[0];
        const auto guardian = start_guardian(program, {}, configuration, lab.network.gw.fd());
        child_ = guardian.process;
        guard_ = guardian.socket;
        take_worker();
    }
    ~Forger() {
        close(work_);
        close(guard_);
        waitpid(child_, nullptr, 0);
    }

    void take_worker() {
        std::array<char, 256> frame{};
        REQUIRE(is_readable(guard_));
        const auto got = gmgate::receive_with_descriptor(guard_, frame.data(), frame.size());
        REQUIRE(got.size > 0);
        REQUIRE(got.descriptor >= 0);
        work_ = got.descriptor;
    }
    static bool is_readable(int fd) {
        pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
        return poll(&one, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) == 1;
    }
    /// The GM_DONE to this frame; events and greetings on the way are left out.
    gm_done ask(const xfrm::Frame& frame) {
        last_answer.clear();
        REQUIRE(send(work_, frame.data(), frame.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size()));
        return next_done();
    }
    gm_done next_done() {
        for (;;) {
            std::array<std::uint8_t, GM_FRAME_LIMIT> answer{};
            REQUIRE(is_readable(work_));
            const auto size = recv(work_, answer.data(), answer.size(), 0);
            REQUIRE(size > 0);
            const std::span<const std::uint8_t> frame(answer.data(), static_cast<std::size_t>(size));
            xfrm::FrameReader reader(frame);
            if (reader.header().kind == GM_DONE) return reader.take<gm_done>();
            if (reader.header().kind == GM_SEALED || reader.header().kind == GM_KEY)
                last_answer.assign(frame.begin(), frame.end());
        }
    }
    /// Sends the frame again and again and reads no answer, until the engine takes no more for a second, but at most
    /// `most` times. How often.
    std::size_t flood(const xfrm::Frame& frame, std::size_t most) {
        pollfd room{.fd = work_, .events = POLLOUT, .revents = 0};
        for (std::size_t sent = 0; sent < most; ++sent)
            while (send(work_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
                REQUIRE(errno == EAGAIN);
                if (poll(&room, 1, 1000) == 0) return sent;
            }
        return most;
    }
    /// The answers to what flood() sent.
    std::vector<gm_done> answers(std::size_t count) {
        std::vector<gm_done> all;
        while (all.size() < count) all.push_back(next_done());
        return all;
    }
    /// What came before the last GM_DONE: a seal, a key, or nothing.
    xfrm::Frame last_answer;
    template <class T>
    T answer_as() const {
        REQUIRE(!last_answer.empty());
        return xfrm::FrameReader(last_answer).take<T>();
    }
    pid_t worker() const { return child_of(child_); }
    const xfrm::Frame& configuration() const { return configuration_; }
    void send_to_guardian(const xfrm::Frame& frame) const {
        CHECK(send(guard_, frame.data(), frame.size(), MSG_NOSIGNAL) > 0);
    }

private:
    pid_t child_ = -1;
    int guard_ = -1, work_ = -1;
    xfrm::Frame configuration_;
};

xfrm::SetRequest a_set() {
    xfrm::SetRequest request{};
    auto& p = request.parameters;
    p.ue = *gmgate::Address::parse("10.1.0.77");
    p.gateway = *gmgate::Address::parse(Network::kAccess4);
    p.port_uc = gmgate::Port{5062};
    p.port_us = gmgate::Port{5063};
    p.port_pc = gmgate::Port{6200};
    p.port_ps = gmgate::Port{6100};
    p.spi_uc = gmgate::Spi{4001};
    p.spi_us = gmgate::Spi{4002};
    p.spi_pc = gmgate::Spi{0x10000001};
    p.spi_ps = gmgate::Spi{0x10000002};
    p.algorithms = {gmgate::Alg::hmac_sha_1_96, gmgate::Ealg::aes_cbc};
    for (auto& octet : request.keys.integrity.expose_for_writing(20)) octet = 1;
    for (auto& octet : request.keys.confidentiality.expose_for_writing(16)) octet = 2;
    request.mark = gmgate::Mark{77};
    request.lifetime = std::chrono::seconds(600);
    return request;
}

xfrm::Frame install(const xfrm::SetRequest& request, std::uint32_t reqid = 21321) {
    return xfrm::FrameWriter(GM_INSTALL_SET, 1).add(xfrm::to_frame(request, gmgate::ReqId{reqid})).finish();
}

xfrm::Frame seal(const xfrm::SetRequest& request, std::uint64_t epoch) {
    gm_seal order{};
    order.epoch = epoch;
    order.set = xfrm::to_frame(request.parameters);
    return xfrm::FrameWriter(GM_SEAL_SET, 1).add(order).finish();
}

xfrm::Frame install_sealed(const xfrm::SetRequest& request, const gm_sealed& sealed, std::uint64_t epoch,
                           std::uint32_t reqid = 21321) {
    gm_install_sealed order{};
    order.epoch = epoch;
    order.set = xfrm::to_frame(request.parameters);
    order.reqid = reqid;
    order.mark = request.mark.value;
    order.lifetime = 600;
    order.sealed = sealed;
    return xfrm::FrameWriter(GM_INSTALL_SEALED, 1).add(order).finish();
}

/// Whether eight octets of a_set()'s keys, or of the cluster's secret, stand in it.
template <class T>
bool contains_keys(const T& answer) {
    const std::string_view octets(reinterpret_cast<const char*>(&answer), sizeof answer);
    return octets.find(std::string(8, '\1')) != octets.npos || octets.find(std::string(8, '\2')) != octets.npos ||
           octets.find(std::string(8, '\xaa')) != octets.npos;
}

/// While it lives, engines that are started seal for a cluster.
struct ClusterSecret {
    ClusterSecret() {
        std::ofstream(path) << "1:" << std::string(64, 'a') << "\n";
        std::filesystem::permissions(path, std::filesystem::perms::owner_read);
        setenv("GMGATE_CLUSTER", "home", 1);
        setenv("GMGATE_CLUSTER_SECRET", path.c_str(), 1);
    }
    ~ClusterSecret() {
        unsetenv("GMGATE_CLUSTER");
        unsetenv("GMGATE_CLUSTER_SECRET");
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
    }
    ClusterSecret(const ClusterSecret&) = delete;
    ClusterSecret& operator=(const ClusterSecret&) = delete;
    std::string path = "/tmp/" + unique_word("cluster-secret-");
};

}  // namespace

TEST_SUITE("engine") {
    TEST_CASE("gmgated holds no capability, its engine CAP_NET_ADMIN alone; both are filtered and gain nothing") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        const auto gmgated = lab.gateway().pid(), guardian = child_of(gmgated), worker = child_of(guardian);
        for (const auto process : {gmgated, guardian, worker}) {
            CAPTURE(process);
            CHECK(status_line(process, "NoNewPrivs") == "1");
            CHECK(status_line(process, "Seccomp") == "2");
        }
        for (const char* set : {"CapEff", "CapPrm", "CapInh", "CapAmb"}) CHECK(status_line(gmgated, set) == kNone);
        CHECK(status_line(guardian, "CapEff") == kNone);
        CHECK(status_line(guardian, "CapPrm") == kNetAdmin);
        CHECK(status_line(worker, "CapEff") == kNetAdmin);
        CHECK(status_line(worker, "CapPrm") == kNetAdmin);
        phone.deregister();
        CHECK(lab.stop_gateway() == 0);
        CHECK(eventually([&] {
            return status_line(guardian, "Pid") == "no such process" && status_line(worker, "Pid") == "no such process";
        }));
    }

    TEST_CASE("in-process still works, and then gmgated has no child") {
        auto options = plain_lab();
        options.more_sections = "[xfrm]\nsa-engine = \"in-process\"\n";
        Lab lab(options);
        CHECK(child_of(lab.gateway().pid()) == 0);
        Phone phone(lab, {});
        phone.demand_registered();
        phone.deregister();
        CHECK(lab.stop_gateway() == 0);
    }

    TEST_CASE(
        "a gmgated that was taken over: foreign SPI, address, port, reqid, SA, policy, a second configuration, half frames: refused, and nothing changes") {
        auto options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        const auto& gw = lab.network.gw;
        // A neighbour's, as strongSwan would have them: one to our access address, one on the core side, and its
        // policy.
        gw.ip_batch(
            "xfrm state add src 10.1.0.50 dst 10.1.0.1 proto esp spi 0xc0000001 reqid 7 mode tunnel aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128\n"
            "xfrm state add src 10.2.0.1 dst 10.2.0.2 proto esp spi 0xc0000002 reqid 7 mode tunnel aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128\n"
            "xfrm policy add src 10.9.0.0/24 dst 10.8.0.0/24 dir out tmpl src 10.2.0.1 dst 10.2.0.2 proto esp reqid 7 mode tunnel\n");
        const auto before = kernel_state(gw);
        Forger forger(lab);
        const auto is_forbidden = [](const gm_done& done) { return done.outcome == GM_REFUSED && done.code == EPERM; };
        const auto is_malformed = [](const gm_done& done) {
            return done.outcome == GM_REFUSED && done.code == EBADMSG;
        };

        CHECK(is_forbidden(forger.ask(install(a_set(), 7))));
        auto set = a_set();
        set.parameters.spi_ps = gmgate::Spi{0xc0000009};
        CHECK(is_forbidden(forger.ask(install(set))));
        set = a_set();
        set.parameters.gateway = *gmgate::Address::parse(Network::kGwCore4);
        CHECK(is_forbidden(forger.ask(install(set))));
        set = a_set();
        set.parameters.port_ps = gmgate::Port{22};
        CHECK(is_forbidden(forger.ask(install(set))));
        for (const auto& [address, spi] : {std::pair{"10.1.0.1", 0xc0000001U}, std::pair{"10.2.0.2", 0xc0000002U}}) {
            xfrm::FrameWriter removal(GM_REMOVE_SAS, 1, 1);
            removal.add(xfrm::to_frame(xfrm::SaId{*gmgate::Address::parse(address), gmgate::Spi{spi}}));
            CHECK(is_forbidden(forger.ask(removal.finish())));
        }
        const auto guards = [](gm_kind kind, std::uint16_t port) {
            xfrm::FrameWriter policy(kind, 1, 1);
            policy.add(xfrm::guards_frame_of({*gmgate::Address::parse(Network::kAccess4), {}})).add(port);
            return policy.finish();
        };
        CHECK(is_forbidden(forger.ask(guards(GM_INSTALL_GUARDS, 22))));
        // What opened a protected port in an earlier version of the protocol, for a port whose guards stand.
        CHECK(is_malformed(forger.ask(guards(static_cast<gm_kind>(9), 6100))));
        CHECK(is_forbidden(forger.ask(forger.configuration())));
        forger.send_to_guardian(forger.configuration());
        const auto whole = install(a_set());
        for (std::size_t size = 1; size < whole.size(); size += 7)
            CHECK(is_malformed(
                forger.ask(xfrm::Frame(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)))));
        CHECK(kernel_state(gw) == before);

        const auto last = forger.ask(whole);  // it still does what is allowed
        CHECK(last.outcome == GM_OK);
        CHECK(last.counters.forbidden == 8);
        CHECK(last.counters.malformed >= 20);
        CHECK(list_sas(gw).size() == 6);
        CHECK(
            forger.ask(xfrm::FrameWriter(GM_REMOVE_SET, 2).add(xfrm::to_frame(a_set().parameters)).finish()).outcome ==
            GM_OK);
        CHECK(kernel_state(gw) == before);
    }

    TEST_CASE("a gmgated that was taken over wants keys under a seal: without a cluster's secret the engine has none") {
        auto options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        Forger forger(lab);
        REQUIRE(forger.ask(install(a_set())).outcome == GM_OK);
        const auto before = kernel_state(lab.network.gw);
        for (const auto& frame :
             {seal(a_set(), 1), install_sealed(a_set(), {}, 1), xfrm::FrameWriter(GM_DIALOG_KEY, 3).finish()}) {
            const auto done = forger.ask(frame);
            CHECK(done.outcome == GM_REFUSED);
            CHECK(done.code == EPERM);
        }
        CHECK(forger.last_answer.empty());
        CHECK(kernel_state(lab.network.gw) == before);
    }

    TEST_CASE(
        "a gmgated that was taken over in a cluster: it gets seals and no key, and installs what was sealed, as it was, once") {
        auto options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        const auto& gw = lab.network.gw;
        gw.ip_batch(
            "xfrm state add src 10.1.0.50 dst 10.1.0.1 proto esp spi 0x10000001 reqid 7 mode transport aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128\n");
        const ClusterSecret secret;
        Forger forger(lab);
        // A neighbour's SA under the SPI of one of ours: no key of it comes out.
        CHECK(forger.ask(seal(a_set(), 1)).outcome != GM_OK);
        CHECK(forger.last_answer.empty());
        gw.run("ip xfrm state flush");
        REQUIRE(forger.ask(install(a_set())).outcome == GM_OK);
        CHECK(forger.ask(seal(a_set(), 0)).code == EBADMSG);
        REQUIRE(forger.ask(seal(a_set(), 1)).outcome == GM_OK);
        const auto sealed = forger.answer_as<gm_sealed>();
        CHECK(!contains_keys(sealed));
        CHECK(
            forger.ask(xfrm::FrameWriter(GM_REMOVE_SET, 2).add(xfrm::to_frame(a_set().parameters)).finish()).outcome ==
            GM_OK);
        const auto before = kernel_state(gw);
        const auto is_refused = [&](const xfrm::Frame& frame) { return forger.ask(frame).outcome == GM_REFUSED; };
        for (std::size_t at = 0; at < sizeof(gm_sealed) - sizeof sealed.reserved_end; at += 9) {
            auto altered = sealed;
            reinterpret_cast<std::uint8_t*>(&altered)[at] ^= 0x40;
            CAPTURE(at);
            CHECK(is_refused(install_sealed(a_set(), altered, 2)));
        }
        auto other = a_set();
        other.parameters.ue = *gmgate::Address::parse("10.1.0.78");  // to an address of the one who took it over
        CHECK(is_refused(install_sealed(other, sealed, 2)));
        other = a_set();
        other.parameters.port_ps = gmgate::Port{22};
        CHECK(is_refused(install_sealed(other, sealed, 2)));
        CHECK(is_refused(install_sealed(a_set(), sealed, 2, 7)));  // under another's reqid
        CHECK(is_refused(install_sealed(a_set(), sealed, 1)));     // in the epoch in which it was sealed: numbers again
        other = a_set();
        other.mark = gmgate::Mark{0};
        CHECK(is_refused(install_sealed(other, sealed, 2)));
        CHECK(kernel_state(gw) == before);

        REQUIRE(forger.ask(xfrm::FrameWriter(GM_DIALOG_KEY, 3).finish()).outcome == GM_OK);
        CHECK(!contains_keys(forger.answer_as<gm_key>()));
        CHECK(forger.ask(install_sealed(a_set(), sealed, 2)).outcome == GM_OK);  // it still does what is allowed
        CHECK(list_sas(gw).size() == 4);
    }

    TEST_CASE(
        "a flood of forged requests whose answers nobody reads: the engine stops reading, grows no further, refuses each, and serves on") {
        auto options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        const auto before = kernel_state(lab.network.gw);
        Forger forger(lab);
        REQUIRE(forger.ask(install(a_set(), 7)).outcome == GM_REFUSED);
        constexpr std::size_t kMost = 200'000;
        const auto sent = forger.flood(install(a_set(), 7), kMost);
        CAPTURE(sent);
        CHECK(sent > 100);
        CHECK(sent < kMost);
        const auto resident = resident_kib(forger.worker());
        CHECK(resident > 0);
        CHECK(resident < 64 * 1024);
        const auto all = forger.answers(sent);
        for (const auto& done : all) REQUIRE((done.outcome == GM_REFUSED && done.code == EPERM));
        CHECK(all.back().counters.forbidden == sent + 1);
        CHECK(kernel_state(lab.network.gw) == before);
        CHECK(forger.ask(install(a_set())).outcome == GM_OK);
        CHECK(list_sas(lab.network.gw).size() == 4);
    }

    TEST_CASE(
        "kill -9 of the worker while phones register: it comes back, no live SA is lost, and every phone registers") {
        constexpr std::size_t kPhones = 60;
        auto options = plain_lab();
        options.users = kPhones + 2;
        options.more_sections = "[limits]\nchallenges-per-address = 256\nsets-per-address = 1000\n";
        Lab lab(options);
        Phone four(lab, {.user = kPhones, .offer = kSha1AesCbc.offer()}),
            six(lab, {.user = kPhones + 1, .is_v6 = true, .is_tcp = true});
        four.demand_registered();
        six.demand_registered();
        const auto guardian = child_of(lab.gateway().pid());
        Program phones({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--addresses",
                                    std::string(Network::kUe4) + "+1", "--count", std::to_string(kPhones), "--rate",
                                    "20", "--hold", "15", "--json"},
                        .name = "gmue",
                        .network = &lab.network.ue});
        std::size_t place = lab.gateway().line_count();
        for (int kills = 0; kills < 3; ++kills) {
            const auto worker = child_of(guardian);
            REQUIRE(worker > 0);
            REQUIRE(kill(worker, SIGKILL) == 0);
            place = lab.gateway().wait_for_text("xfrmd-restarted", place).index + 1;
            place = lab.gateway().wait_for_text("kernel-audited", place).index + 1;
        }
        const auto summary = phones.wait_for_text("\"phase\":\"register\"", 0, std::chrono::minutes(3)).text;
        INFO(summary);
        CHECK(summary.find("\"ok\":" + std::to_string(kPhones)) != std::string::npos);
        CHECK(count_sas(lab.network.gw) == 4 * (kPhones + 2));
        CHECK(lab.gateway_log().find("sa-lost") == std::string::npos);
        for (auto [from, to] : {std::pair{&four, &six}, std::pair{&six, &four}}) {
            const auto word = unique_word("after-");
            CHECK(from->message(to->impu(), word) == 200);
            to->await_message(word);
        }
        CHECK(phones.wait(std::chrono::minutes(3)) == 0);
        CHECK(lab.stop_gateway() == 0);
    }

    TEST_CASE("the guardian's end is gmgated's: it says why and fails, and started again it adopts everybody") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        REQUIRE(kill(child_of(lab.gateway().pid()), SIGKILL) == 0);
        CHECK(lab.gateway().wait() == 1);
        CHECK(lab.gateway_log().find("xfrmd-guardian-gone") != std::string::npos);
        CHECK(gateway_sas(lab, {}).size() == 4);
        lab.kill_gateway();
        lab.start_gateway();
        lab.gateway().wait_for_text("registrations=1 ");
        phone.deregister();
        CHECK(lab.stop_gateway() == 0);
    }
}
