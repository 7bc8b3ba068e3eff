#include "tests/integration/scene.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include <doctest/doctest.h>

namespace gmgate::test {

Programs programs() {
    if (const char* folder = std::getenv("GMGATE_TEST_PROGRAMS")) {
        const std::string prefix = std::string(folder) + "/";
        return {.gmgated = prefix + "gmgated",
                .gmue = prefix + "gmue",
                .gmcore = prefix + "gmcore",
                .gmctl = prefix + "gmctl"};
    }
    return {.gmgated = GMGATED, .gmue = GMUE, .gmcore = GMCORE, .gmctl = GMCTL};
}

LabOptions plain_lab() {
    LabOptions options;
    options.programs = programs();
    return options;
}

std::string Access::gateway_port(int port) const {
    const std::string address(gateway());
    return (is_v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

std::string Access::ue_port(int port) const {
    const std::string address(ue());
    return (is_v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

std::vector<KernelSa> gateway_sas(const Lab& lab, const Access& access) {
    auto sas = list_sas(lab.network.gw);
    std::erase_if(
        sas, [&](const KernelSa& sa) { return sa.source != access.gateway() && sa.destination != access.gateway(); });
    return sas;
}

const KernelSa& find_sa(const std::vector<KernelSa>& sas, bool inbound, bool server_port) {
    const auto found = std::ranges::find_if(sas, [&](const KernelSa& sa) {
        const int own = inbound ? sa.destination_port : sa.source_port;
        const bool is_server = own == Lab::kProtectedServerPorts[0] || own == Lab::kProtectedServerPorts[1];
        const bool is_client = own >= Lab::kFirstClientPort && own <= Lab::kLastClientPort;
        const bool is_inbound = sa.destination == Network::kAccess4 || sa.destination == Network::kAccess6;
        return is_inbound == inbound && (server_port ? is_server : is_client);
    });
    if (found == sas.end()) throw std::runtime_error("no such SA in the gateway's kernel:\n" + show(sas));
    return *found;
}

std::string show(const std::vector<KernelSa>& sas) {
    std::string text = std::to_string(sas.size()) + " SAs\n";
    for (const auto& sa : sas) {
        text += sa.source + ":" + std::to_string(sa.source_port) + " -> " + sa.destination + ":" +
                std::to_string(sa.destination_port) + " spi " + std::to_string(sa.spi) + " " + sa.auth + " " +
                sa.crypt + sa.aead + " mark " + std::to_string(sa.mark) + ", " + std::to_string(sa.packets) +
                " packets, " + std::to_string(sa.integrity_failures) + " failures\n";
    }
    return text;
}

namespace {

void check_as_negotiated(const std::vector<KernelSa>& sas, const Pair& pair) {
    INFO(show(sas));
    REQUIRE(sas.size() == 4);
    for (const auto& sa : sas) {
        CHECK(sa.mode == "transport");
        CHECK(sa.reqid == 21321);
        CHECK(sa.auth == pair.auth);
        CHECK(sa.crypt == pair.crypt);
        CHECK(sa.aead == pair.aead);
        CHECK(sa.source_port != 0);
        CHECK(sa.destination_port != 0);
        CHECK(sa.hard_seconds > 0);
        CHECK(sa.integrity_failures == 0);
    }
    for (const bool server_port : {true, false}) CHECK(find_sa(sas, true, server_port).spi >= 65536);
    // The mark by which the gateway tells whose SA carried a message.
    CHECK(find_sa(sas, true, true).mark != 0);
    CHECK(find_sa(sas, true, true).mark == find_sa(sas, true, false).mark);
}

}  // namespace

void check_combination(Lab& lab, Phone& peer, std::size_t user, const Pair& pair, const Access& access) {
    const auto sas_before = list_sas(lab.network.gw);
    const auto policies_before = list_policies(lab.network.gw);
    const auto core_before = lab.core_mark();
    // SAs of this phone alone: the peer's stay as they are.
    const auto own_sas = [&] {
        auto sas = list_sas(lab.network.gw);
        std::erase_if(sas, [&](const KernelSa& sa) {
            return std::ranges::any_of(sas_before, [&](const KernelSa& old) {
                return old.spi == sa.spi && old.destination == sa.destination;
            });
        });
        return sas;
    };
    PhoneOptions options;
    options.user = user;
    options.is_v6 = access.is_v6;
    options.is_tcp = access.is_tcp;
    options.offer = pair.offer();
    Phone phone(lab, options);

    phone.demand_registered();
    const auto registered = own_sas();
    check_as_negotiated(registered, pair);
    CHECK(find_sa(registered, true, true).packets > 0);
    CHECK(list_policies(lab.network.gw).size() == policies_before.size());
    const auto registers = lab.core_registers(core_before);
    REQUIRE(registers.size() == 2);
    CHECK(registers[0]["integrity_protected"] == "no");
    CHECK(registers[0]["status"] == 401);
    CHECK(registers[1]["integrity_protected"] == "yes");
    CHECK(registers[1]["status"] == 200);
    for (const auto& event : registers) CHECK(event["sec_agree_leftovers"].empty());

    const auto outward = unique_word("outward-"), inward = unique_word("inward-");
    CHECK(phone.message(peer.impu(), outward) == 200);
    peer.await_message(outward);
    CHECK(peer.message(phone.impu(), inward) == 200);
    phone.await_message(inward);
    const auto received = lab.core_received(core_before, "MESSAGE");
    for (const auto& word : {outward, inward})
        CHECK(
            std::ranges::any_of(received, [&](const std::string& raw) { return raw.find(word) != std::string::npos; }));

    const auto used = own_sas();
    INFO(show(used));
    REQUIRE(used.size() == 4);
    const auto grew = [&](bool inbound, bool server_port) {
        return find_sa(used, inbound, server_port).packets > find_sa(registered, inbound, server_port).packets;
    };
    CHECK(grew(true, true));  // uc → ps: requests of the phone
    if (access.is_tcp)
        CHECK(grew(false, true));  // ps → uc: answers on the phone's connection, and requests when it is reused (B-15)
    else CHECK(grew(false, false));  // pc → us: answers and requests for the phone
    for (const auto& sa : used) CHECK(sa.integrity_failures == 0);

    phone.deregister();
    CHECK(eventually([&] { return own_sas().empty(); }, std::chrono::seconds(20)));
    CHECK(list_policies(lab.network.gw) == policies_before);
}

std::string SecurityClient::text() const {
    return "ipsec-3gpp; alg=" + alg + "; ealg=" + ealg + "; prot=esp; mod=trans; spi-c=" + std::to_string(spi_c) +
           "; spi-s=" + std::to_string(spi_s) + "; port-c=" + std::to_string(port_c) +
           "; port-s=" + std::to_string(port_s);
}

std::string RawRegister::text() const {
    const std::string aor = impu_of_user(user), from = access.ue_port(port);
    return "REGISTER sip:" + std::string(kHomeDomain) + " SIP/2.0\r\n" + "Via: SIP/2.0/" +
           (access.is_tcp ? "TCP " : "UDP ") + from + ";branch=z9hG4bK" + call_id +
           ";rport\r\nMax-Forwards: 70\r\nFrom: <" + aor + ">;tag=" + call_id + "\r\nTo: <" + aor +
           ">\r\nCall-ID: " + call_id + "\r\nCSeq: 1 REGISTER\r\nContact: <sip:" + from + ">;expires=600000\r\n" +
           "Authorization: Digest username=\"" + impi_of_user(user) + "\",realm=\"" + kHomeDomain +
           "\",uri=\"sip:" + kHomeDomain + "\",nonce=\"\",response=\"\"\r\nSupported: path,sec-agree\r\n" + require +
           (security_client.empty() ? "" : "Security-Client: " + security_client + "\r\n") + more_headers +
           "Content-Length: 0\r\n\r\n";
}

std::string ask(Lab& lab, const RawRegister& request) {
    RawPeer peer(lab.network.ue, request.access.is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp,
                 request.access.ue_port(request.port), request.access.gateway_port(5060));
    if (request.access.is_tcp && !peer.connects(kPatience)) throw std::runtime_error("no TCP connection to port 5060");
    peer.send(request.text());
    for (;;) {
        auto response = peer.receive_until("\r\n\r\n");
        if (status_of(response) >= 200) return response;
    }
}

int status_of(std::string_view response) {
    constexpr std::string_view start = "SIP/2.0 ";
    const auto at = response.find(start);
    if (at == std::string_view::npos) return 0;
    return std::atoi(std::string(response.substr(at + start.size(), 3)).c_str());
}

nlohmann::json gateway_status(const Lab& lab) {
    return nlohmann::json::parse(run_program(
        {.command = {lab.programs().gmctl, "--socket", lab.control_socket(), "--json", "status"}, .name = "gmctl"}));
}

bool all_transactions_end(const Lab& lab, std::chrono::seconds patience) {
    return eventually(
        [&] {
            const auto transactions = gateway_status(lab).at("transactions");
            return transactions.at("server") == 0 && transactions.at("client") == 0;
        },
        patience);
}

std::string repeated(std::string_view word, std::size_t size) {
    std::string text;
    while (text.size() < size) text.append(word).push_back(' ');
    return text;
}

}  // namespace gmgate::test
