// What leaves the gateway for the operator's other tools: the trace of a TLS phone, HEPv3 to a collector; and the
// control socket from one process to the next.
#include <doctest/doctest.h>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>

#include "tests/integration/operator.h"
#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

/// What a collector such as Homer takes out of a HEPv3 packet: the chunks of vendor 0 by their type. Empty: not HEPv3,
/// or broken.
using Chunks = std::map<int, std::string>;

Chunks read_hep(std::string_view packet) {
    const auto number = [&](std::size_t at) {
        return static_cast<std::size_t>(static_cast<unsigned char>(packet[at]) << 8 |
                                        static_cast<unsigned char>(packet[at + 1]));
    };
    if (packet.size() < 6 || !packet.starts_with("HEP3") || number(4) != packet.size()) return {};
    Chunks chunks;
    for (std::size_t at = 6; at < packet.size();) {
        if (packet.size() - at < 6) return {};
        const auto vendor = number(at), type = number(at + 2), length = number(at + 4);
        if (length < 6 || length > packet.size() - at) return {};
        if (vendor == 0) chunks[static_cast<int>(type)] = packet.substr(at + 6, length - 6);
        at += length;
    }
    return chunks;
}

constexpr int kAuthKey = 14, kSource4 = 3, kDestination4 = 4, kDestinationPort = 8, kPayloadType = 11, kCaptureId = 12,
              kPayload = 15, kCorrelation = 17;

/// Listens where `hep-collector` points to.
class Collector {
public:
    Collector(const Namespace& network, const std::string& local) {
        network.enter([&] {
            fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
            sockaddr_storage address{};
            const auto length = gmgate::Endpoint::parse(local)->to_sockaddr(address);
            if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), length) != 0)
                throw std::runtime_error("the collector cannot bind");
        });
        thread_ = std::thread([this] { run(); });
    }
    ~Collector() {
        stop_ = true;
        thread_.join();
        close(fd_);
    }
    std::vector<Chunks> packets() {
        const std::lock_guard lock(mutex_);
        return packets_;
    }
    std::size_t count(const std::function<bool(const Chunks&)>& wanted) {
        const auto all = packets();
        return static_cast<std::size_t>(std::ranges::count_if(all, wanted));
    }

private:
    void run() {
        std::string buffer(65536, '\0');
        while (!stop_) {
            pollfd fd{fd_, POLLIN, 0};
            if (poll(&fd, 1, 100) <= 0) continue;
            const auto n = recv(fd_, buffer.data(), buffer.size(), 0);
            if (n < 0) continue;
            const std::lock_guard lock(mutex_);
            packets_.push_back(read_hep({buffer.data(), static_cast<std::size_t>(n)}));
        }
    }
    int fd_ = -1;
    std::atomic<bool> stop_ = false;
    std::mutex mutex_;
    std::vector<Chunks> packets_;
    std::thread thread_;
};

/// A collector for HEPv3 over TLS, of which this project wrote nothing: what it decrypts goes to a file.
struct TlsCollector {
    TlsCollector(const Lab& lab, const std::string& folder, const std::string& certificate, const std::string& name)
        : file(folder + "/" + name),
          server({.command = {"sh", "-c",
                              "exec openssl s_server -accept 10.2.0.2:9061 -cert " + folder + "/" + certificate +
                                  ".pem -key " + folder + "/" + certificate + ".key -quiet > " + file},
                  .name = "s_server",
                  .network = &lab.network.core}) {}
    std::vector<Chunks> packets() const {
        std::ifstream in(file);
        const std::string bytes(std::istreambuf_iterator<char>(in), {});
        std::vector<Chunks> found;
        for (std::size_t at = 0; at + 6 <= bytes.size();) {
            const auto size = static_cast<std::size_t>(static_cast<unsigned char>(bytes[at + 4]) << 8 |
                                                       static_cast<unsigned char>(bytes[at + 5]));
            if (size < 6 || at + size > bytes.size()) break;  // not whole yet
            found.push_back(read_hep(std::string_view(bytes).substr(at, size)));
            at += size;
        }
        return found;
    }
    bool has(const std::string& text) const {
        return std::ranges::any_of(packets(), [&](const Chunks& chunks) {
            return chunks.contains(kPayload) && chunks.at(kPayload).find(text) != std::string::npos;
        });
    }
    std::string file;
    Program server;
};

std::string bytes_of(const char* address) {
    const auto parsed = *gmgate::Address::parse(address);
    return {reinterpret_cast<const char*>(parsed.bytes().data()), parsed.size()};
}

}  // namespace

TEST_SUITE("operate") {
    TEST_CASE("sngrep -L is a collector as well, as docs/tools.md says: what it writes has the registration in clear") {
        auto options = plain_lab();
        options.top_lines = "hep-collector = \"10.2.0.2:9060\"\n";
        options.is_gateway_started = false;
        Lab lab(options);
        const auto pcap = lab.folder() + "/calls.pcap";
        Program sngrep({.command = {"sngrep", "-L", "udp:10.2.0.2:9060", "-N", "-O", pcap},
                        .name = "sngrep",
                        .network = &lab.network.core});
        CHECK(eventually([&] { return lab.network.core.run("ss -Hlun").find(":9060") != std::string::npos; }));
        lab.start_gateway();
        Phone phone(lab, {});
        phone.demand_registered();
        phone.reregister(false);
        const auto has_both = [&] {  // the first one's 200 and the second one's
            std::ifstream file(pcap, std::ios::binary);
            const std::string bytes(std::istreambuf_iterator<char>(file), {});
            const auto first = bytes.find("SIP/2.0 200 ");
            return first != std::string::npos && bytes.find("SIP/2.0 200 ", first + 1) != std::string::npos;
        };
        CHECK(eventually(has_both));
        const auto seen = run_program({.command = {"tshark", "-n", "-r", pcap, "-T", "fields", "-E", "separator=|",
                                                   "-e", "ip.src", "-e", "sip.Method", "-e", "sip.Status-Code"},
                                       .name = "tshark"},
                                      {}, std::chrono::seconds(120));
        INFO(seen);
        CHECK(seen.find(std::string(Network::kUe4) + "|REGISTER|") != std::string::npos);
        CHECK(seen.find(std::string(Network::kAccess4) + "||401") != std::string::npos);
        CHECK(seen.find("||200\n") != std::string::npos);
    }

    TEST_CASE("HEPv3 over TLS: key and icid come along, nothing goes to a stranger, and what waited comes later") {
        const std::string folder = make_temporary_folder();
        make_certificate(folder, "homer", {.host = "homer.example"});
        make_certificate(folder, "stranger", {.host = "homer.example"});
        std::ofstream(folder + "/hep.key") << "homers-key\n";
        auto options = plain_lab();
        options.top_lines =
            "hep-collector = \"10.2.0.2:9061\"\nhep-transport = \"tls\"\nhep-tls-name = "
            "\"homer.example\"\nhep-tls-ca = \"" +
            folder + "/homer.pem\"\nhep-auth-key-file = \"" + folder + "/hep.key\"\n";
        options.is_gateway_started = false;
        Lab lab(options);
        auto stranger = std::make_unique<TlsCollector>(lab, folder, "stranger", "stranger.hep");
        lab.start_gateway();
        Phone phone(lab, {}), other(lab, {.user = 1, .is_v6 = true});
        phone.demand_registered();
        other.demand_registered();
        CHECK(eventually([&] { return lab.gateway_log().find("hep-not-connected") != std::string::npos; }));
        CHECK(stranger->packets().empty());
        stranger.reset();

        auto collector = std::make_unique<TlsCollector>(lab, folder, "homer", "first.hep");
        const auto word = unique_word("to-homer-");
        CHECK(phone.message(other.impu(), word) == 200);
        CHECK(eventually([&] { return collector->has(word); }, std::chrono::seconds(30)));
        CHECK(collector->has("REGISTER "));  // of the time before
        std::size_t with_icid = 0;
        for (const auto& chunks : collector->packets()) {
            REQUIRE_MESSAGE(!chunks.empty(), "not HEPv3");
            CHECK(chunks.at(kAuthKey) == "homers-key");
            const auto& payload = chunks.at(kPayload);
            const auto at = payload.find("icid-value=\"");
            if (at == std::string::npos) continue;
            ++with_icid;
            CHECK(payload.substr(at + 12).starts_with(chunks.at(kCorrelation)));
        }
        CHECK(with_icid >= 3);

        // The collector is restarted: its connection ends, and the next one has what comes then.
        collector.reset();
        CHECK(eventually([&] { return lab.gateway_log().find("hep-disconnected") != std::string::npos; }));
        TlsCollector next(lab, folder, "homer", "second.hep");
        const auto later = unique_word("later-");
        CHECK(phone.message(other.impu(), later) == 200);
        CHECK(eventually([&] { return next.has(later); }, std::chrono::seconds(30)));
    }

    TEST_CASE(
        "a TLS phone: show has its session as the kernel tells it, trace and HEPv3 have its SIP, and none of them a key") {
        TlsLab tls({.top_lines = "hep-collector = \"10.2.0.2:9060\"\nhep-id = 77\n", .is_gateway_started = false});
        auto& lab = *tls.lab;
        Collector collector(lab.network.core, "10.2.0.2:9060");
        lab.start_gateway();
        ask_gmctl(lab, {"trace", impi_of_user(0)});
        Phone newer(lab, {.user = 0, .arguments = tls.phone_arguments("tls", "1.3")}),
            older(lab, {.user = 1, .arguments = tls.phone_arguments("tls-prior", "1.2")});
        newer.demand_registered();
        older.demand_registered();
        const auto word = unique_word("over-tls-");
        CHECK(newer.message(older.impu(), word) == 200);
        older.await_message(word);

        for (std::size_t user : {0U, 1U}) {
            const auto shown = ask_gmctl(lab, {"show", impi_of_user(user)});
            INFO(shown.dump(1));
            REQUIRE(shown["contacts"].size() == 1);
            const auto& session = shown["contacts"][0]["tls"];
            CHECK(session["version"] == (user == 0 ? "TLSv1.3" : "TLSv1.2"));
            CHECK(session["cipher"].get<std::string>().find("GCM") != std::string::npos);
            CHECK(session["carried_by"] == "the kernel");
        }
        CHECK(screen(lab, {"show", impi_of_user(0)}).find("carried by the kernel") != std::string::npos);

        // The trace: the REGISTER in clear, then everything over TLS, as text; tshark reads the pcap and finds SIP, not
        // TLS.
        const auto pcap = lab.folder() + "/tls.pcap";
        std::string drawn;
        CHECK(eventually([&] {
            return (drawn = screen(lab, {"trace", impi_of_user(0), "--pcap", pcap})).find("MESSAGE, TLS") !=
                   std::string::npos;
        }));
        INFO(drawn);
        for (const auto* part : {"REGISTER, clear", "REGISTER, TLS", "200 OK, TLS"})
            CHECK(drawn.find(part) != std::string::npos);
        const auto fields = run_program(
            {.command = {"tshark", "-n", "-r", pcap, "-T", "fields", "-E", "separator=|", "-e", "frame.protocols", "-e",
                         "sip.Method", "-e", "sip.Status-Code", "-e", "sip.msg_body"},
             .name = "tshark"});
        INFO(fields);
        CHECK(fields.find("sip") != std::string::npos);
        CHECK(fields.find("tls") == std::string::npos);
        CHECK(fields.find("|REGISTER|") != std::string::npos);
        CHECK(fields.find("|MESSAGE|") != std::string::npos);
        CHECK(fields.find("|200|") != std::string::npos);

        // The collector got every message of every phone, traced or not.
        const auto tells = [&](const std::string& text) {
            return [text](const Chunks& c) {
                return c.contains(kPayload) && c.at(kPayload).find(text) != std::string::npos;
            };
        };
        CHECK(eventually([&] {
            return collector.count(tells(word)) >= 4;
        }));  // in from the phone, out to the core and back, out to the other phone
        std::string all = drawn;
        std::size_t from_phone = 0;
        for (const auto& chunks : collector.packets()) {
            REQUIRE_MESSAGE(!chunks.empty(), "not HEPv3");
            CHECK(chunks.at(kPayloadType) == "\x01");  // SIP
            CHECK(chunks.at(kCaptureId) == std::string("\0\0\0\x4d", 4));
            all += chunks.at(kPayload);
            if (chunks.at(kPayload).find(word) == std::string::npos || chunks.at(kSource4) != bytes_of(Network::kUe4))
                continue;
            ++from_phone;
            CHECK(chunks.at(kDestination4) == bytes_of(Network::kAccess4));
            CHECK(chunks.at(kDestinationPort) == std::string("\x13\xc5"));  // 5061
            CHECK(chunks.at(kCorrelation) == impi_of_user(0));
        }
        CHECK(from_phone == 1);

        // What the core put into its 401s and the phones into their answers is in none of it.
        std::size_t secrets = 0;
        for (const auto& event : lab.core_log()) {
            const auto raw = event.value("raw", "");
            for (const std::string key : {"ck=\"", "ik=\"", "response=\""})
                for (auto at = raw.find(key); at != std::string::npos; at = raw.find(key, at + 1)) {
                    const auto value = raw.substr(at + key.size(), 32);
                    if (value.find_first_not_of("0123456789abcdef") != std::string::npos) continue;
                    ++secrets;
                    CHECK(all.find(value) == std::string::npos);
                }
        }
        CHECK(secrets >= 4);
    }

    TEST_CASE("the control socket goes on with the next process across --take-over") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        CHECK(ask_gmctl(lab, {"log-level", "info"})["before"] == "debug");
        Program follower(
            {.command = gmctl_command(lab, {"--json", "registrations", "--follow"}), .name = "gmctl --follow"});
        CHECK(eventually([&] {
            phone.reregister(false);
            return follower.has_text("refreshed");
        }));
        lab.take_over();
        CHECK(follower.wait() != 0);  // it hears that its gateway has gone, and does not hang
        const auto status = ask_gmctl(lab, {"status"});
        CHECK(status["registrations"]["ipsec_3gpp"] == 1);
        CHECK(status["counters"]["registered"] == 0);  // the next process, and nobody else
        CHECK(why(lab, 0)["verdict"] == "registered");
        CHECK(ask_gmctl(lab, {"show", impi_of_user(0)})["contacts"][0]["sets"][0]["sas"].size() == 4);
        CHECK(ask_gmctl(lab, {"log-level", "info"})["before"] ==
              "debug");  // an administrator's rights as before; the level is the file's again
        phone.reregister(true);
        CHECK(why(lab, 0)["verdict"] == "registered");
        CHECK(ask_gmctl(lab, {"deregister", impi_of_user(0)})["contacts"] == 1);
    }
}
