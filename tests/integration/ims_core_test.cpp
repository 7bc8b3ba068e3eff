// A real IMS core: Kamailio's I-CSCF and S-CSCF with an HSS behind Diameter Cx, configured as docs/core.md recommends.
#include <exception>
#include <fstream>
#include <map>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/integration/ims_core_lab.h"
#include "tests/integration/message_shapes.h"

using namespace gmgate::test;

namespace {

auto named(const std::string& name) {
    return [name](const nlohmann::json& event) { return event.value("event", "") == name; };
}

constexpr const char* kServiceRoute = "<sip:orig@scscf.ims.mnc001.mcc001.3gppnetwork.org:6060;lr>";

std::string user(const std::string& name) { return name + "@" + kHomeDomain; }
std::string uri(const std::string& name) { return "sip:" + user(name); }

/// Of gmue, in a users file.
constexpr const char* kDefaultKeys =
    "k = \"465b5ce8b199b49faa5f0a2ee238a6bc\"\nopc = \"cd63cb71954a9f4e48a5994e37a02baf\"\n";

/// A subscriber of gmhss --users-file with the default keys of gmue.
std::string aka_user(const std::string& name, const std::vector<std::string>& identities) {
    std::string impus;
    for (const auto& identity : identities) impus += (impus.empty() ? "\"" : ", \"") + identity + "\"";
    return "[[user]]\nimpi = \"" + user(name) + "\"\nimpu = [" + impus + "]\n" + kDefaultKeys;
}

std::vector<std::string> as(const std::string& impi, const std::string& impu) {
    return {"--impi", impi, "--impu", impu};
}

/// The response with this status that the phone got, from its log.
std::string response_in(const std::string& log, int status) {
    std::ifstream file(log);
    std::string line;
    while (std::getline(file, line)) {
        const auto event = nlohmann::json::parse(line, nullptr, false);
        if (!event.is_discarded() && event.value("dir", "") == "in" && event.value("status", 0) == status)
            return event.value("raw", "");
    }
    return {};
}

void exchange(Phone& one, Phone& other) {
    const auto word = unique_word("by-scscf-");
    CHECK(one.message(other.impu(), word) == 200);
    other.await_message(word);
}

void call(Phone& caller, Phone& callee) {
    caller.program().write_line("call " + callee.impu() + " 600");
    CHECK(caller.await_event(named("prack_sent"), "PRACK").value("ok", false));
    caller.await_event(named("call_established"), "the call");
    callee.await_event(named("call_established"), "the ACK");
    CHECK(caller.command("hold", named("reinvite_sent")).value("direction", "") == "recvonly");
    CHECK(callee.command("update", named("update_sent")).value("ok", false));
    CHECK(callee.command("hangup", named("call_ended")).value("ok", false));
    CHECK(caller.await_event(named("call_ended"), "the BYE").value("by", "") == "remote");
}

/// The message with that Call-ID that a phone got, from its log; "" when none came in time. `status` 0: the request.
std::string received(const std::string& log, const std::string& call, int status) {
    std::string found;
    (void)eventually(
        [&] {
            std::ifstream file(log);
            for (std::string line; found.empty() && std::getline(file, line);) {
                const auto event = nlohmann::json::parse(line, nullptr, false);
                if (!event.is_discarded() && event.value("dir", "") == "in" && event.value("status", 0) == status &&
                    event.value("call_id", "").find(call) != std::string::npos)
                    found = event.value("raw", "");
            }
            return !found.empty();
        },
        std::chrono::seconds(10));
    return found;
}

std::string hex(const std::string& octets) {
    std::string out;
    for (const unsigned char c : octets) out += fmt::format("{:02x}", c);
    return out;
}

std::string field(const std::string& message, const std::string& name) {
    const auto at = message.find("\r\n" + name + ": ");
    if (at == std::string::npos) return {};
    const auto begin = at + name.size() + 4;
    return message.substr(begin, message.find("\r\n", begin) - begin);
}

/// What the placeholders of a shape stand for: a message of this phone to the other one.
std::map<std::string, std::string> shape_values(Phone& from, const Phone& to, const std::string& way,
                                                const std::string& word) {
    const auto status = from.command("status", named("status"));
    const bool is_v6 = way.ends_with('6');
    const std::string gateway = is_v6 ? fmt::format("[{}]", Network::kAccess6) : Network::kAccess4;
    return {{"host", is_v6 ? fmt::format("[{}]", Network::kUe6) : Network::kUe4},
            {"transport", way.starts_with("tcp") ? "TCP" : "UDP"},
            {"port_us", std::to_string(status.value("port_us", 0))},
            {"user", from.impu().substr(4, 15)},
            {"impu", from.impu()},
            {"peer", to.impu()},
            {"realm", kHomeDomain},
            {"branch", "z9hG4bK" + word},
            {"token", word},
            {"call", word},
            {"verify", from.events("challenge").back().value("security_server", "")},
            {"route", fmt::format("<sip:{}:{};lr>, {}", gateway, status.value("port_ps", 0), kServiceRoute)}};
}

/// Sends the message over the phone's SAs; it must be at the other one as it was written, and its answer comes back.
void check_shape(const MessageShape& shape, Phone& from, Phone& to, const std::string& way, const std::string& logs) {
    const auto word = unique_word("shape");
    const auto octets = shape.render(shape_values(from, to, way, word));
    from.program().write_line("inject " + hex(octets));
    const auto arrived = received(logs + "/to.jsonl", word, 0);
    INFO(shape.name, " over ", way, "\n", octets, "\narrived:\n", arrived);
    REQUIRE_FALSE(arrived.empty());
    // Where the caller is, is not for the other end (RFC 7315 §4.4).
    for (const auto& kept : shape.kept_fields(octets, {"p-access-network-info"}))
        CHECK_MESSAGE(arrived.find("\r\n" + kept + "\r\n") != std::string::npos, kept.substr(0, 200));
    CHECK(body_of(arrived) == body_of(octets));
    for (const char* gone : {"Security-Verify", "Proxy-Require", "P-Access-Network-Info"})
        CHECK(field(arrived, gone).empty());
    const bool is_call = shape.method() == "INVITE",
               is_unknown = shape.method() == "SUBSCRIBE" || shape.method() == "REFER";
    const auto answer = received(logs + "/" + way + ".jsonl", word, is_call ? 486 : is_unknown ? 405 : 200);
    CHECK_FALSE(answer.empty());
    if (!is_call) return;
    const auto values = shape_values(from, to, way, word);
    from.program().write_line(
        "inject " +
        hex(fmt::format("ACK {0} SIP/2.0\r\nVia: SIP/2.0/{1} {2}:{3};branch={4}\r\nMax-Forwards: 70\r\n"
                        "From: {5}\r\nTo: {6}\r\nCall-ID: {7}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
                        to.impu(), values.at("transport"), values.at("host"), values.at("port_us"), values.at("branch"),
                        field(answer, "From"), field(answer, "To"), field(answer, "Call-ID"))));
}

/// The core that cases share, because it takes seconds to start: over TCP, found by SRV, with AKA users, a family and a
/// desk phone.
std::unique_ptr<ImsCore>& shared_core() {
    static std::unique_ptr<ImsCore> core;
    return core;
}

/// A case's turn with it. A case that leaves a phone behind, or an exception, does not spoil the next one's: that one
/// gets a new core.
class Turn {
public:
    Turn() {
        auto& core = shared_core();
        if (core) return;
        const std::string pool = std::string("pool.") + kHomeDomain;
        const std::vector<std::string> family{uri("family"), uri("office"), "tel:+15550100"};
        ImsCoreOptions options;
        options.core_transport = "tcp";
        options.has_tls = true;
        options.next_hop = pool;
        // The first I-CSCF is not there: its connection is refused.
        options.records = {"--srv-host=_sip._tcp." + pool + ",hss." + kHomeDomain + ",5060,1,1",
                           "--srv-host=_sip._tcp." + pool + ",icscf." + kHomeDomain + ",5060,2,1"};
        options.hss_arguments = {"--application-server", std::string("sip:") + ImsCore::kApplicationServer4 + ":5060"};
        options.users = aka_user("phone", family) + aka_user("tablet", family) + aka_user("alice", {uri("alice")}) +
                        "[[user]]\nimpi = \"" + user("desk") + "\"\npassword = \"secret\"\n" +
                        "[[range]]\nfirst-imsi = \"001010000000001\"\ncount = 8\n" + kDefaultKeys;
        core = std::make_unique<ImsCore>(options);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
        const bool is_clean = std::uncaught_exceptions() == 0 && eventually([&] { return gateway_sets() == 0; });
        if (!is_clean) shared_core().reset();
    }
    ImsCore& core() const { return *shared_core(); }
    Lab& lab() const { return core().lab(); }
    /// Sets of four SAs in the gateway's kernel.
    double gateway_sets() const { return static_cast<double>(count_sas(lab().network.gw)) / 4; }
    bool has_sets(double count) const {
        return eventually([&] { return gateway_sets() == count; });
    }
};

}  // namespace

TEST_SUITE("ims-core") {
    TEST_CASE(
        "AKA phones over IPv4, IPv6, UDP and TCP, each with another algorithm pair: they register, message, call, refresh and leave") {
        const Turn turn;
        ImsCore& core = turn.core();
        INFO(core.logs());
        struct Wish {
            Access access;
            Pair pair;
        };
        const std::vector<Wish> wishes{{{false, false}, kAesGcm},
                                       {{false, true}, kSha1AesCbc},
                                       {{true, false}, kMd5TripleDes},
                                       {{true, true}, kAesGmac}};
        std::vector<std::unique_ptr<Phone>> phones;
        for (std::size_t i = 0; i < wishes.size(); ++i) {
            PhoneOptions options{.user = i, .offer = wishes[i].pair.offer(), .arguments = {"--100rel"}};
            options.is_v6 = wishes[i].access.is_v6;
            options.is_tcp = wishes[i].access.is_tcp;
            phones.push_back(std::make_unique<Phone>(turn.lab(), options));
            Phone& phone = *phones.back();
            phone.demand_registered();
            CHECK(phone.first().at("service_route") == nlohmann::json{kServiceRoute});
            CHECK(phone.first().at("associated_uris") == nlohmann::json{"<" + phone.impu() + ">"});
            CHECK(core.registered_with(impi_of_user(i)) == std::vector{impi_of_user(i)});
        }
        CHECK(turn.gateway_sets() == 4);
        for (std::size_t i = 0; i < phones.size(); ++i) exchange(*phones[i], *phones[(i + 1) % phones.size()]);
        call(*phones[0], *phones[3]);
        call(*phones[2], *phones[1]);
        const auto challenges = core.decisions("MAR").size();
        for (const auto& phone : phones) CHECK_FALSE(phone->reregister(false).value("challenged", true));
        CHECK(core.decisions("MAR").size() == challenges);
        exchange(*phones[3], *phones[0]);
        for (std::size_t i = 0; i < phones.size(); ++i) {
            phones[i]->deregister();
            CHECK(core.registered_with(impi_of_user(i)).empty());
        }
        CHECK(turn.has_sets(0));
        // ISC: gmcore stands for an application server, and had no other part in it. It gets a REGISTER of the S-CSCF's
        // own, without what was between phone, gateway and S-CSCF (TS 24.229 §5.4.1.7).
        CHECK(eventually([&] { return turn.lab().core_received(0, "REGISTER").size() >= 4; }));
        for (const auto& text : turn.lab().core_received(0)) {
            CHECK(text.starts_with("REGISTER sip:"));
            CHECK(text.find("Contact: <sip:scscf.") != std::string::npos);
            CHECK(text.find("Authorization") == std::string::npos);
        }
    }

    TEST_CASE(
        "two identities on two devices, a digest phone over TLS: either identity reaches both, calls go between AKA and digest, a device leaves alone") {
        const Turn turn;
        INFO(turn.core().logs());
        Lab& lab = turn.lab();
        Phone phone(lab, {.arguments = as(user("phone"), uri("family"))});
        Phone tablet(lab, {.is_v6 = true, .is_tcp = true, .arguments = as(user("tablet"), uri("family"))});
        Phone alice(lab, {.arguments = as(user("alice"), uri("alice"))});
        Phone desk(lab, {.is_v6 = true, .arguments = turn.core().tls_arguments(user("desk"), "secret")});
        for (Phone* each : {&phone, &tablet, &alice, &desk}) each->demand_registered();
        CHECK(phone.first().at("associated_uris").size() == 3);
        CHECK(turn.core().registered_with(user("phone")).size() == 2);
        for (const char* identity : {"family", "office"}) {
            const auto word = unique_word(identity);
            CHECK(desk.message(uri(identity), word) == 200);
            phone.await_message(word);
            tablet.await_message(word);
        }
        CHECK(alice.call(uri("desk")).value("ok", false));
        CHECK(desk.call(uri("alice")).value("ok", false));

        tablet.deregister();
        CHECK(turn.has_sets(2));
        const auto word = unique_word("one-left-");
        CHECK(desk.message(uri("family"), word) == 200);
        phone.await_message(word);
        for (Phone* each : {&phone, &alice, &desk}) each->deregister();
        // Kamailio tells the HSS of who leaves last, and of nobody else.
        CHECK(turn.core().registered_with(user("phone")) == std::vector{user("tablet")});
    }

    TEST_CASE(
        "C-52: the HSS ends registrations (RTR): the reg event tells, and SAs and TLS connection end; again after a new registration; on every device of the identity") {
        const Turn turn;
        INFO(turn.core().logs());
        Lab& lab = turn.lab();
        Phone phone(lab, {.is_tcp = true, .arguments = as(user("phone"), uri("family"))});
        Phone tablet(lab, {.is_v6 = true, .arguments = as(user("tablet"), uri("family"))});
        Phone alice(lab, {.arguments = as(user("alice"), uri("alice"))});
        Phone desk(lab, {.arguments = turn.core().tls_arguments(user("desk"), "secret")});
        for (Phone* each : {&phone, &tablet, &alice, &desk}) each->demand_registered();
        const auto terminate = [&](const std::string& name) {
            const auto from = lab.gateway().line_count();
            CHECK(turn.core().ask_hss("rtr " + user(name)).value("result", 0) == 2001);
            lab.gateway().wait_for_text("why=\"de-registered by the network\"", from);
        };
        terminate("desk");
        desk.await_event(named("transport"), "the end of the TLS connection");
        for (int round = 0; round < 2; ++round) {
            terminate("alice");
            CHECK(turn.has_sets(2));
            CHECK(alice.command("register", named("registered")).value("challenged", false));
        }
        CHECK(alice.message(uri("office"), "still there") == 200);
        terminate("phone");
        CHECK(turn.has_sets(1));  // alice's
        alice.deregister();
        CHECK(lab.gateway_log().find("reg-event-bad-notify") == std::string::npos);
        CHECK(lab.gateway_log().find("reg-event-failed") == std::string::npos);
    }

    TEST_CASE(
        "what goes wrong between phone, S-CSCF and HSS: a wrong RES, a user nobody knows, a sequence number that is behind, an S-CSCF that lost its memory; core over UDP") {
        shared_core().reset();
        ImsCoreOptions options;
        options.scscf_defines = {"CHALLENGE_REFRESH"};
        ImsCore core(options);
        Lab& lab = core.lab();
        INFO(core.logs());
        Phone wrong(lab, {.user = 0, .arguments = {"--wrong-res", "--expect", "403"}});
        CHECK(wrong.first().value("status", 0) == 403);
        CHECK(core.registered_with(impi_of_user(0)).empty());
        Phone nobody(lab, {.arguments = {"--impi", user("nobody"), "--impu", uri("nobody"), "--expect", "403"}});
        CHECK(nobody.first().value("status", 0) == 403);
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));

        // TS 33.102 §6.3.5: the USIM is far ahead of the HSS.
        const auto log = lab.folder() + "/phone.jsonl";
        Phone phone(lab, {.user = 1, .is_tcp = true, .arguments = {"--sqn", "000000100000", "--log", log}});
        phone.demand_registered();
        CHECK(phone.events("resynchronising").size() == 1);
        CHECK(core.decisions("MAR", impi_of_user(1)).back().value("why", "") == "resynchronised");
        CHECK(phone.reregister(false).value("challenged", false));
        Phone other(lab, {.user = 2, .is_v6 = true});
        other.demand_registered();
        exchange(phone, other);

        // TS 24.229 §5.4.3.2: a caller unknown here is told to register anew; nobody is left whom others could reach.
        core.restart_scscf();
        CHECK(phone.message(other.impu(), "lost") == 504);
        const auto answer = response_in(log, 504);
        CHECK(answer.find("<action>initial-registration</action>") != std::string::npos);
        CHECK(answer.find("application/3gpp-ims+xml") != std::string::npos);
        CHECK(answer.find("P-Asserted-Identity: <sip:orig@scscf.") != std::string::npos);
        CHECK(phone.command("register", named("registered")).value("challenged", false));
        CHECK(other.command("register", named("registered")).value("challenged", false));
        exchange(phone, other);
    }

    TEST_CASE(
        "a core that has IPv6 alone: phones with the other four algorithm pairs register, message, call and leave; messages as handsets write them arrive as they were written") {
        shared_core().reset();
        ImsCoreOptions options;
        options.is_v6 = true;
        ImsCore core(options);
        Lab& lab = core.lab();
        INFO(core.logs());
        const std::vector<std::pair<std::string, Pair>> wishes{
            {"udp4", kSha1TripleDes}, {"tcp4", kSha1Null}, {"udp6", kMd5AesCbc}, {"tcp6", kMd5Null}};
        std::vector<std::unique_ptr<Phone>> phones;
        for (std::size_t i = 0; i < wishes.size(); ++i) {
            const auto& [way, pair] = wishes[i];
            PhoneOptions phone{.user = i, .offer = pair.offer(), .arguments = {"--100rel", "--log"}};
            phone.is_v6 = way.ends_with('6');
            phone.is_tcp = way.starts_with("tcp");
            phone.arguments.push_back(lab.folder() + "/" + way + ".jsonl");
            phones.push_back(std::make_unique<Phone>(lab, phone));
            phones.back()->demand_registered();
            CHECK(phones.back()->first().value("alg", "") == pair.alg);
            CHECK(phones.back()->first().value("ealg", "") == pair.ealg);
        }
        for (std::size_t i = 0; i < phones.size(); ++i) exchange(*phones[i], *phones[(i + 1) % phones.size()]);
        call(*phones[0], *phones[3]);
        call(*phones[2], *phones[1]);

        Phone busy(lab, {.user = 4,
                         .is_v6 = true,
                         .is_tcp = true,
                         .arguments = {"--reject", "486", "--no-ring", "--answer-after", "0", "--log",
                                       lab.folder() + "/to.jsonl"}});
        busy.demand_registered();
        int sent = 0;
        for (const MessageShape& shape : read_message_shapes(GMGATE_SHAPES)) {
            // Kamailio reads at most 16 kB from a stream.
            if (!shape.is_request_to_peer() || shape.text.find("{pad:30000}") != std::string::npos) continue;
            for (std::size_t i = 0; i < wishes.size(); ++i)
                if (shape.goes_over(wishes[i].first)) {
                    check_shape(shape, *phones[i], busy, wishes[i].first, lab.folder());
                    ++sent;
                }
        }
        CHECK(sent >= 12);
        // The HSS ends one of them, over this family as well.
        const auto from = lab.gateway().line_count();
        CHECK(core.ask_hss("rtr " + impi_of_user(2)).value("result", 0) == 2001);
        lab.gateway().wait_for_text("why=\"de-registered by the network\"", from);
        for (const std::size_t i : {0, 1, 3}) phones[i]->deregister();
    }
}
