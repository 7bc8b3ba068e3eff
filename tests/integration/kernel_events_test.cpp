// Others on the gateway's machine: who deletes, flushes or replaces what is ours, and links and addresses that come and
// go. Every time the gateway notices, says so, and nothing crosses the access link in clear.
#include <algorithm>
#include <optional>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// Two phones, one over IPv4 and UDP, one over IPv6 and TCP, and a listener on the access link.
struct Two {
    Lab lab{plain_lab()};
    Capture link{lab.network.ue, Network::kUeLink};
    Phone four{lab, {.user = 0, .offer = kSha1AesCbc.offer(), .arguments = {"--timeout", "8"}}};
    Phone six{lab, {.user = 1, .is_v6 = true, .is_tcp = true}};
    std::vector<std::string> markers;

    Two() {
        four.demand_registered();
        six.demand_registered();
    }
    std::string marker() { return markers.emplace_back(unique_word("event-")); }
    void talk() {
        for (auto [from, to] : {std::pair{&four, &six}, std::pair{&six, &four}}) {
            const auto word = marker();
            CHECK(from->message(to->impu(), word) == 200);
            to->await_message(word);
        }
    }
    void check_status(Phone& from, Phone& to, int status) { CHECK(from.message(to.impu(), marker()) == status); }
    bool logged(const std::string& id, const std::string& words = {}) const {
        const auto log = lab.gateway_log();
        for (std::size_t at = log.find(id); at != std::string::npos; at = log.find(id, at + 1))
            if (words.empty() || log.substr(at, log.find('\n', at) - at).find(words) != std::string::npos) return true;
        return false;
    }
    bool comes_to_log(const std::string& id, const std::string& words = {}) const {
        return eventually([&] { return logged(id, words); });
    }
    void register_again(Phone& phone) {
        const auto outcome = phone.command("register", [](const nlohmann::json& e) {
            return e.value("event", "") == "registered" || e.value("event", "") == "register_failed";
        });
        INFO(outcome.dump());
        CHECK(outcome.value("event", "") == "registered");
    }
    void check_link() {
        for (const auto& word : markers) CHECK(link.find(word).empty());
        CHECK(lab.stop_gateway() == 0);
    }
};

std::string id_words(const KernelSa& sa) {
    return "src " + sa.source + " dst " + sa.destination + " proto esp spi " + std::to_string(sa.spi);
}

std::vector<KernelSa> sas_of_four(const Two& two) { return gateway_sas(two.lab, {false, false}); }

}  // namespace

TEST_SUITE("essentials") {
    TEST_CASE(
        "an SA that somebody else deletes ends its registration; the other phone is unharmed, requests get 480, registering again helps") {
        Two two;
        two.talk();
        two.lab.network.gw.ip_batch("xfrm state delete " + id_words(find_sa(sas_of_four(two), false, false)) + "\n");
        CHECK(two.comes_to_log("sa-lost", "somebody else deleted"));
        CHECK(two.comes_to_log("registration-ended", "the phone must register again"));
        CHECK(eventually([&] { return sas_of_four(two).empty(); }));
        CHECK(gateway_sas(two.lab, {true, true}).size() == 4);
        two.check_status(two.six, two.four, 480);
        two.register_again(two.four);
        two.talk();
        two.check_link();
    }
}

TEST_SUITE("kernel-events") {
    TEST_CASE("a flush of all SAs is noticed: both registrations end with the reason, and both phones come back") {
        Two two;
        two.talk();
        two.lab.network.gw.ip_batch("xfrm state flush\n");
        CHECK(two.comes_to_log("kernel-audited", "lost=2"));
        CHECK(count_sas(two.lab.network.gw) == 0);
        two.register_again(two.six);
        two.check_status(two.six, two.four, 480);
        two.register_again(two.four);
        two.talk();
        CHECK_FALSE(two.logged("guards-missing"));
        two.check_link();
    }

    TEST_CASE("an old set that somebody deletes ends alone: the registration goes on over the new one") {
        Two two;
        const auto first = sas_of_four(two);
        two.four.reregister(true);
        CHECK(sas_of_four(two).size() == 8);
        two.lab.network.gw.ip_batch("xfrm state delete " + id_words(first.front()) + "\n");
        CHECK(two.comes_to_log("sa-lost", "state=old"));
        CHECK(eventually([&] { return sas_of_four(two).size() == 4; }));
        CHECK_FALSE(two.logged("registration-ended"));
        two.talk();
        two.check_link();
    }

    TEST_CASE("an SA that the kernel lets expire before our time ends its registration with that reason") {
        Two two;
        two.talk();
        const auto& sa = find_sa(sas_of_four(two), true, true);
        two.lab.network.gw.ip_batch(
            "xfrm state update " + id_words(sa) +
            " reqid 21321 mode transport auth-trunc hmac(sha1) 0x0102030405060708090a0b0c0d0e0f1011121314 96 "
            "enc cbc(aes) 0x0102030405060708090a0b0c0d0e0f10 limit time-hard 1\n");
        CHECK(two.comes_to_log("sa-lost", "lifetime is over"));
        CHECK(eventually([&] { return sas_of_four(two).empty(); }));
        two.check_status(two.six, two.four, 480);
        two.register_again(two.four);
        two.talk();
        two.check_link();
    }

    TEST_CASE("guard policies that somebody deletes, replaces or flushes stand again at once, the same as before") {
        Two two;
        const auto policies = list_policies(two.lab.network.gw);
        const auto stand = [&] {
            return eventually([&] {
                auto now = list_policies(two.lab.network.gw);
                return std::ranges::is_permutation(now, policies);
            });
        };
        two.talk();
        two.lab.network.gw.ip_batch("xfrm policy delete src 0.0.0.0/0 dst 10.1.0.1/32 dport 6100 dir in\n");
        CHECK(two.comes_to_log("guards-missing", "deleted"));
        CHECK(stand());
        two.talk();
        two.lab.network.gw.ip_batch("xfrm policy flush\n");
        CHECK(two.comes_to_log("guards-missing", "flushed"));
        CHECK(stand());
        two.talk();
        CHECK_FALSE(two.logged("sa-lost"));
        // Clear text is dropped as before.
        const auto before = xfrm_counters(two.lab.network.gw).at("XfrmInTmplMismatch");
        RawPeer stranger(two.lab.network.ue, RawPeer::Kind::udp, "10.1.0.2:7777", "10.1.0.1:6100");
        stranger.send("OPTIONS sip:x SIP/2.0\r\n\r\n");
        CHECK(eventually([&] { return xfrm_counters(two.lab.network.gw).at("XfrmInTmplMismatch") > before; }));
        two.check_link();
    }

    TEST_CASE(
        "a guard that somebody replaced cannot be put right by us: nothing leaves a protected port until it is, and the log says why") {
        Two two;
        two.talk();
        two.lab.network.gw.ip_batch(
            "xfrm policy update src 10.1.0.1/32 dst 0.0.0.0/0 sport 6200 dir out action allow priority 2000\n");
        CHECK(two.comes_to_log("guards-missing", "replaced"));
        CHECK(two.comes_to_log("kernel-audit-failed", "another policy stands in the place"));
        const auto word = two.marker();
        const auto from = two.four.mark();
        two.four.start_message(two.six.impu(), word);
        CHECK(two.comes_to_log("no-sa", "a guard policy is missing"));
        two.lab.network.gw.ip_batch("xfrm policy delete src 10.1.0.1/32 dst 0.0.0.0/0 sport 6200 dir out\n");
        CHECK(two.comes_to_log("guards-restored"));
        two.four.await_event([](const nlohmann::json& e) { return e.value("event", "") == "message_sent"; },
                             "the end of the lost message", from);
        two.talk();
        two.check_link();
    }

    TEST_CASE(
        "an access address that goes away suspends its registrations: 480, the other family goes on; it comes back without a restart") {
        Two two;
        two.talk();
        two.lab.network.gw.ip_batch("address del 10.1.0.1/16 dev access\n");
        CHECK(two.comes_to_log("access-address-gone", "10.1.0.1"));
        two.check_status(two.six, two.four, 480);
        const auto word = two.marker();
        CHECK(two.six.message(two.six.impu(), word) == 200);
        two.six.await_message(word);
        two.lab.network.gw.ip_batch("address add 10.1.0.1/16 dev access\n");
        CHECK(two.comes_to_log("access-address-back", "10.1.0.1"));
        two.talk();
        // The link as a whole: IPv6 addresses go with it and have to be given again.
        two.lab.network.gw.ip_batch("link set access down\n");
        CHECK(two.comes_to_log("access-address-gone", "fd01::1"));
        two.lab.network.gw.ip_batch("link set access up\naddress add fd01::1/64 dev access nodad\n");
        CHECK(two.comes_to_log("access-address-back", "fd01::1"));
        CHECK(eventually([&] {
            const auto log = two.lab.gateway_log();
            return log.rfind("access-address-back address=10.1.0.1") >
                   log.rfind("access-address-gone address=10.1.0.1");
        }));
        two.talk();
        RawRegister fresh;  // listeners on the clear port, too
        fresh.user = 2;
        fresh.access = {true, true};
        fresh.security_client = SecurityClient{}.text();
        CHECK(status_of(ask(two.lab, fresh)) == 401);
        two.check_link();
    }

    TEST_CASE(
        "larval SAs that a listener for ACQUIRE causes do no harm: not to live SAs, not to new ones, and nobody takes them for ours") {
        Two two;
        two.talk();
        const auto sas = count_sas(two.lab.network.gw);
        for (const char* ends : {"src 10.1.0.1 dst 10.1.0.2", "src fd01::1 dst fd01::2"})
            two.lab.network.gw.run(std::string("ip xfrm state allocspi ") + ends +
                                   " proto esp reqid 21321 mode transport min 0xc0000000 max 0xcfffffff");
        CHECK(count_sas(two.lab.network.gw) == sas + 2);
        two.talk();
        two.four.reregister(true);
        two.six.reregister(true);
        two.talk();
        CHECK_FALSE(two.logged("sa-lost"));
        two.check_link();
    }
}
