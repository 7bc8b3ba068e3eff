// Traced messages: whose they are, what is blotted out, limits; the ladder, the pcap (read back by tshark) and HEP.
#include <doctest/doctest.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "daemon/observe/message_trace.h"
#include "daemon/operate/hep.h"
#include "gmctl/ladder.h"
#include "gmctl/pcap.h"
#include "gmctl/table.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

const Impi kAlice{"001010000000001@ims.example"}, kBob{"001010000000002@ims.example"};

std::string request(const std::string& method, const std::string& call_id, const std::string& extra = {}) {
    return method +
           " sip:ims.example SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.2:5062;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:x@y>\r\nCall-ID: " +
           call_id + "\r\nCSeq: 1 " + method + "\r\nMax-Forwards: 70\r\n" + extra + "Content-Length: 0\r\n\r\n";
}
std::string authorization(const Impi& impi) {
    return "Authorization: Digest username=\"" + impi.value +
           "\",realm=\"ims\",nonce=\"n\",uri=\"sip:x\",response=\"6629fae49393a05397450978507c4ef1\"\r\n";
}

sip::Flow flow() {
    sip::Flow f;
    f.local = {*Address::parse("10.1.0.1"), Port{6100}};
    f.remote = {*Address::parse("10.1.0.2"), Port{5062}};
    return f;
}

TracedMessage traced(bool is_v6 = false) {
    TracedMessage m;
    m.time = std::chrono::system_clock::time_point{std::chrono::microseconds{1'700'000'000'123'456}};
    m.impi = kAlice;
    m.source = {*Address::parse(is_v6 ? "fd01::2" : "10.1.0.2"), Port{5062}};
    m.destination = {*Address::parse(is_v6 ? "fd01::1" : "10.1.0.1"), Port{6100}};
    m.bytes = request("REGISTER", "call-1");
    return m;
}

gmctl::LadderMessage drawn(const std::string& bytes, bool outward, bool core_side) {
    gmctl::LadderMessage m;
    m.time = "2026-11-25T22:01:02.123Z";
    m.microseconds = 1'700'000'000'123'456;
    m.source = "10.1.0.2:5062";
    m.destination = "10.1.0.1:6100";
    m.transport = "UDP";
    m.protection = "ESP set 7";
    m.bytes = bytes;
    m.outward = outward;
    m.core_side = core_side;
    return m;
}

}  // namespace

TEST_CASE("trace: ck, ik and digest responses are blotted out, with lengths kept, however they are written") {
    for (const auto& header : std::vector<std::string>{
             "WWW-Authenticate: Digest realm=\"x\",nonce=\"abc\",ck=\"SECRET01\",ik=\"SECRET02\",qop=\"auth\"",
             "www-authenticate:Digest ik=SECRET01 , CK = \"SECRET02\"",
             "Authorization: Digest username=\"u\",response=\"SECRET01\"",
             "Proxy-Authorization: Digest\r\n response=\r\n \"SECRET01\",\r\n auts=\"SECRET02\"",
             "Authorization : Digest response=\"SEC\\\"RET\",nc=1",
             "Authentication-Info: rspauth=\"SECRET01\",nextnonce=\"n\""}) {
        const auto text =
            "SIP/2.0 401 Unauthorized\r\nCall-ID: SECRETcall\r\n" + header + "\r\nContent-Length: 9\r\n\r\nck=SECRET";
        const auto out = blotted(text);
        CAPTURE(header);
        CAPTURE(out);
        CHECK(out.size() == text.size());
        const auto at = out.find("SECRETcall") + 10;
        CHECK(out.substr(at, out.find("\r\n\r\n") - at).find("SEC") == std::string::npos);
        CHECK(out.find("SECRETcall") != std::string::npos);
        CHECK(out.ends_with("\r\n\r\nck=SECRET"));
    }
    CHECK(blotted("Authorization: Digest username=\"u\",nonce=\"abc\",uri=\"sip:x\"\r\n\r\n").find("xxx") ==
          std::string::npos);
    CHECK(blotted("").empty());
    CHECK(blotted("Authorization: response=\"unterminated").find("untermin") == std::string::npos);
}

TEST_CASE("trace: nothing is kept of users whom nobody traces") {
    Clock clock;
    MessageTrace trace(clock, {});
    CHECK_FALSE(trace.is_on());
    trace.see(false, flow(), request("REGISTER", "c1", authorization(kAlice)), {});
    REQUIRE(trace.start(kAlice));
    trace.see(false, flow(), request("REGISTER", "c2", authorization(kBob)), {});
    trace.see(false, flow(), request("MESSAGE", "c3"), {.owner = kBob, .core_side = false, .protection = "ESP set 2"});
    CHECK(trace.of(kAlice).empty());
    CHECK(trace.of(kBob).empty());
}

TEST_CASE("trace: messages are a user's by identity, by flow and by Call-ID; following hears them; off forgets them") {
    Clock clock;
    MessageTrace trace(clock, {});
    REQUIRE(trace.start(kAlice));
    std::vector<std::uint64_t> heard;
    const auto subscription = trace.on_message([&](const TracedMessage& message) { heard.push_back(message.number); });
    trace.see(false, flow(), request("REGISTER", "c1", authorization(kAlice)), {});
    trace.see(true, flow(), request("REGISTER", "c1"),
              {.owner = {}, .core_side = true, .protection = "clear"});  // on to the core: same call
    trace.see(false, flow(), request("MESSAGE", "c2"),
              {.owner = kAlice, .core_side = false, .protection = "ESP set 7"});
    trace.see(true, flow(), request("MESSAGE", "c2"), {.owner = {}, .core_side = true, .protection = "clear"});
    // To the other phone of that call; what that one says otherwise is its own.
    trace.see(true, flow(), request("MESSAGE", "c2"), {.owner = kBob, .core_side = false, .protection = "ESP set 8"});
    trace.see(false, flow(), request("MESSAGE", "c9"), {.owner = kBob, .core_side = false, .protection = "ESP set 8"});
    const auto kept = trace.of(kAlice);
    REQUIRE(kept.size() == 5);
    CHECK(kept[4].owner == kBob);
    CHECK(kept[2].owner == kAlice);
    CHECK(heard.size() == 5);
    CHECK(kept[0].bytes.find("6629fae4") == std::string::npos);
    CHECK(kept[0].source == flow().remote);
    CHECK(kept[1].source == flow().local);
    CHECK(kept[2].protection == "ESP set 7");
    CHECK(trace.of(kAlice, kept[1].number).size() == 3);
    trace.stop(kAlice);
    CHECK(trace.of(kAlice).empty());
    trace.see(true, flow(), request("MESSAGE", "c2"), {.owner = {}, .core_side = true, .protection = "clear"});
    CHECK_FALSE(trace.is_on());
}

TEST_CASE("trace: limits of users, messages, octets and calls are reached and hold") {
    Clock clock;
    MessageTrace trace(clock, {.users = 1, .messages = 10, .octets = 100'000, .calls = 5});
    REQUIRE(trace.start(kAlice));
    CHECK(trace.start(kAlice));
    CHECK_FALSE(trace.start(kBob));
    for (int i = 0; i < 100; ++i)
        trace.see(false, flow(), request("MESSAGE", "c" + std::to_string(i)),
                  {.owner = kAlice, .core_side = false, .protection = ""});
    CHECK(trace.of(kAlice).size() == 10);
    CHECK(trace.counters().forgotten == 90);
    trace.see(true, flow(), request("MESSAGE", "c1"), {});  // its call has been forgotten
    CHECK(trace.counters().kept == 100);
    trace.see(true, flow(), request("MESSAGE", "c99"), {});
    CHECK(trace.counters().kept == 101);
    for (int i = 0; i < 9; ++i)
        trace.see(false, flow(), request("MESSAGE", "big", "X: " + std::string(30'000, 'a') + "\r\n"),
                  {.owner = kAlice, .core_side = false, .protection = ""});
    CHECK(trace.of(kAlice).size() <= 3);
}

TEST_CASE("ladder: arrows point the right way between the right columns, and fit the width") {
    const std::vector<gmctl::LadderMessage> messages{
        drawn(request("REGISTER", "c"), false, false), drawn(request("REGISTER", "c"), true, true),
        drawn("SIP/2.0 401 Unauthorized\r\n\r\n", false, true), drawn("SIP/2.0 401 Unauthorized\r\n\r\n", true, false),
        drawn("\x1b[31mevil\r\n", false, false)};
    for (const std::size_t width : {0, 60, 80, 120, 300}) {
        const auto plan = gmctl::ladder_plan("", messages, width);
        CHECK_FALSE(plan.has_other);
        std::vector<std::string> lines;
        for (const auto& message : messages) lines.push_back(gmctl::ladder_line(plan, message, 0));
        for (const auto& line : lines) {
            CHECK(line.find('\x1b') == std::string::npos);
            if (width != 0) CHECK(line.size() <= width + 1);
        }
        CHECK(lines[0].find("> ") == std::string::npos);
        CHECK(lines[0].find(">|") != std::string::npos);   // phone → gateway
        CHECK(lines[0].find(">|") < lines[1].find(">|"));  // gateway → core lies right of it
        CHECK(lines[2].find("|<") > lines[3].find("|<"));  // core → gateway, gateway → phone
        CHECK(lines[3].find("401") != std::string::npos);
        CHECK(lines[4].find("SIP?") != std::string::npos);
    }
    CHECK(gmctl::label_of(messages[2]) == "401 Unauthorized");
}

TEST_CASE("ladder: the other phone of a call has a column of its own, and time passes between messages") {
    auto from = drawn(request("INVITE", "c"), false, false), to = drawn(request("INVITE", "c"), true, false),
         core = drawn(request("INVITE", "c"), true, true);
    from.owner = kAlice.value;
    to.owner = kBob.value;
    core.microseconds += 1'500;
    to.microseconds += 3'000'000;
    const std::vector<gmctl::LadderMessage> call{from, core, to};
    for (const auto& [of, is_reversed] : {std::pair{kAlice.value, false}, {std::string{}, false}, {kBob.value, true}}) {
        for (const std::size_t width : {60, 80, 120}) {
            const auto plan = gmctl::ladder_plan(of, call, width);
            CHECK(plan.has_other);
            CHECK(gmctl::ladder_head(plan).find("other phone") != std::string::npos);
            std::vector<std::string> lines;
            for (std::size_t i = 0; i < 3; ++i)
                lines.push_back(gmctl::ladder_line(plan, call[i], i == 0 ? 0 : call[i - 1].microseconds));
            for (const auto& line : lines) CHECK(line.size() <= width + 1);
            CHECK(lines[1].find("+1.5 ms") != std::string::npos);
            CHECK(lines[2].starts_with("22:01:02.123"));  // later than a second: the time itself
            CHECK((lines[0].find('>') == std::string::npos) == is_reversed);
            CHECK((lines[2].find('>') == std::string::npos) == is_reversed);
            if (!is_reversed) CHECK(lines[2].rfind(">|") > lines[1].rfind(">|"));  // beyond the core's line
        }
        const auto plan = gmctl::ladder_plan(of, call, 0);
        CHECK(gmctl::ladder_mermaid_head(plan).find("participant other as other phone\n") != std::string::npos);
        CHECK(gmctl::ladder_mermaid(plan, is_reversed ? from : to, 0).find("other") != std::string::npos);
        CHECK(gmctl::ladder_mermaid(plan, is_reversed ? to : from, 0).find("other") == std::string::npos);
        CHECK(gmctl::ladder_html("a call", plan, call).find(">other phone<") != std::string::npos);
    }
}

TEST_CASE("ladder: the HTML page is whole by itself and what peers send cannot become markup") {
    const auto page = gmctl::ladder_html(
        "SIP of <x>", {},
        {drawn("MESSAGE sip:a SIP/2.0\r\nSubject: <script>alert(1)</script>\"&\r\n\r\n\x1b", false, false),
         drawn("SIP/2.0 200 <b>OK\r\n\r\n", true, false)});
    // Each arrow leads to its message, and each message back to its arrow.
    for (const auto* part : {"<a href=\"#m1\">", "<a href=\"#m2\">", "<pre id=\"m1\">", "<pre id=\"m2\">",
                             "<g id=\"a1\">", "<a href=\"#a2\">"})
        CHECK_MESSAGE(page.find(part) != std::string::npos, part);
    CHECK(page.find("<script") == std::string::npos);
    CHECK(page.find("<b>") == std::string::npos);
    CHECK(page.find("&lt;script&gt;") != std::string::npos);
    CHECK(page.find("http://") == std::string::npos);
    CHECK(page.find("https://") == std::string::npos);
    CHECK(page.find("SIP of &lt;x&gt;") != std::string::npos);
    CHECK(page.ends_with("</html>\n"));
}

TEST_CASE("pcap: tshark reads SIP, addresses, ports and good checksums, IPv4 and IPv6") {
    auto four = drawn(request("REGISTER", "call-four"), false, false),
         six = drawn(request("MESSAGE", "call-six"), false, false);
    six.source = "[fd01::2]:5062";
    six.destination = "[fd01::1]:6100";
    const auto path =
        (std::filesystem::temp_directory_path() / ("gmgate-" + std::to_string(getpid()) + ".pcap")).string();
    std::ofstream(path, std::ios::binary)
        << gmctl::pcap_header() << gmctl::pcap_record(four) << gmctl::pcap_record(six);
    const auto command =
        "tshark -n -r " + path +
        " -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE -T fields -E separator='|' -e frame.time_epoch -e ip.src -e ipv6.src -e udp.dstport -e sip.Method -e sip.Call-ID -e ip.checksum.status -e udp.checksum.status 2>/dev/null";
    std::FILE* tshark = popen(command.c_str(), "r");
    REQUIRE(tshark != nullptr);
    std::string out;
    std::array<char, 4096> chunk{};
    while (const auto n = std::fread(chunk.data(), 1, chunk.size(), tshark)) out.append(chunk.data(), n);
    const int status = pclose(tshark);
    std::filesystem::remove(path);
    REQUIRE_MESSAGE(status == 0, "tshark is needed (scripts/setup installs it): " << out);
    INFO(out);
    CHECK(out.find("1700000000.123456000|10.1.0.2||6100|REGISTER|call-four|1|1\n") != std::string::npos);
    CHECK(out.find("1700000000.123456000||fd01::2|6100|MESSAGE|call-six||1\n") != std::string::npos);
}

TEST_CASE("pcap: a message longer than a datagram is cut and says so; endpoints that are none give nothing") {
    auto big = drawn(std::string(70'000, 'a'), false, false);
    const auto record = gmctl::pcap_record(big);
    const auto le32 = [&](std::size_t at) {
        std::uint32_t value = 0;
        for (std::size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(record[at + i]);
        return value;
    };
    CHECK(le32(8) == 65535);
    CHECK(le32(12) == 70'028);
    CHECK(record.size() == 16 + 65535);
    big.source = "nonsense";
    CHECK(gmctl::pcap_record(big).empty());
}

TEST_CASE("HEP: a receiver decodes what was sent") {
    for (const bool is_v6 : {false, true}) {
        const int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
        sockaddr_storage at{};
        auto length = Endpoint{*Address::parse(is_v6 ? "::1" : "127.0.0.1"), Port{0}}.to_sockaddr(at);
        REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&at), length) == 0);
        REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &length) == 0);
        HepLabels labels{4711, "homer's key"};
        auto sender = HepSender::open(*Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&at)), labels);
        REQUIRE(sender.has_value());
        const auto message = traced(is_v6);
        sender->send(message);
        CHECK(sender->numbers().sent == 1);
        std::string got(65536, '\0');
        const auto n = recv(fd, got.data(), got.size(), 0);
        close(fd);
        REQUIRE(n > 6);
        got.resize(static_cast<std::size_t>(n));
        // The decoder: "HEP3", total length, then chunks of vendor, type, length, value.
        const auto be = [&](std::string_view bytes) {
            std::uint64_t value = 0;
            for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
            return value;
        };
        CHECK(got.starts_with("HEP3"));
        CHECK(be(std::string_view(got).substr(4, 2)) == got.size());
        std::map<std::uint64_t, std::string> chunks;
        for (std::size_t i = 6; i < got.size();) {
            REQUIRE(i + 6 <= got.size());
            CHECK(be(std::string_view(got).substr(i, 2)) == 0);
            const auto size = be(std::string_view(got).substr(i + 4, 2));
            REQUIRE(size >= 6);
            REQUIRE(i + size <= got.size());
            chunks[be(std::string_view(got).substr(i + 2, 2))] = got.substr(i + 6, size - 6);
            i += size;
        }
        CHECK(be(chunks[1]) == (is_v6 ? 10 : 2));
        CHECK(be(chunks[2]) == 17);
        CHECK(chunks[is_v6 ? 5 : 3] == std::string(reinterpret_cast<const char*>(message.source.address.bytes().data()),
                                                   message.source.address.size()));
        CHECK(chunks[is_v6 ? 6 : 4] ==
              std::string(reinterpret_cast<const char*>(message.destination.address.bytes().data()),
                          message.destination.address.size()));
        CHECK(be(chunks[7]) == 5062);
        CHECK(be(chunks[8]) == 6100);
        CHECK(be(chunks[9]) == 1'700'000'000);
        CHECK(be(chunks[10]) == 123'456);
        CHECK(be(chunks[11]) == 1);
        CHECK(be(chunks[12]) == 4711);
        CHECK(chunks[14] == "homer's key");
        CHECK(chunks[15] == message.bytes);
        CHECK(chunks[17] == kAlice.value);
    }
    auto big = traced();
    big.bytes.assign(66'000, 'a');
    CHECK(hep_packet(big, {}).empty());
}

TEST_CASE("HEP: what belongs to one call has its icid, once the core's side has said it; the map has a limit") {
    IcidMap icids(2);
    const auto with = [](const std::string& id, const std::string& value) {
        return request("INVITE", id, "P-Charging-Vector: " + value + "\r\n");
    };
    CHECK(icids.of(request("INVITE", "c1")).empty());
    CHECK(icids.of(with("c1", "orig-ioi=a; ICID-Value=\"abc;1\"")) == "abc");  // a joke gets no further than its quote
    CHECK(icids.of(with("c1", "orig-ioi=a;icid-value = \"AyretyU0dm\"")) == "AyretyU0dm");
    CHECK(icids.of(request("BYE", "c1")) == "AyretyU0dm");
    CHECK(icids.of(with("c2", "icid-value=token;icid-generated-at=[::1]")) == "token");
    CHECK(icids.of(with("c3", "icid-value=" + std::string(300, 'x'))).empty());
    CHECK(icids.of(with("c4", "icid-value=4")) == "4");
    CHECK(icids.of(request("BYE", "c2")) == "token");
    CHECK(icids.of(request("BYE", "c1")).empty());  // the oldest gave way
    CHECK(icids.of("no SIP").empty());
    auto message = traced();
    CHECK(hep_packet(message, {}, "AyretyU0dm").find("AyretyU0dm") != std::string::npos);
    CHECK(hep_packet(message, {}, "AyretyU0dm").find(kAlice.value) == std::string::npos);
}

TEST_CASE("tables: fit the terminal, cut what may be cut, and let no escape sequence through") {
    gmctl::TextTable table({{"identity", false, true}, {"n", true}});
    table.add({"001010000000001@ims.mnc001.mcc001.3gppnetwork.org", "5"});
    table.add({"\x1b[2Jevil", "12345"});
    const auto wide = table.text(0), narrow = table.text(30);
    CHECK(wide.find("3gppnetwork.org") != std::string::npos);
    CHECK(wide.find('\x1b') == std::string::npos);
    CHECK(wide.find("\\x1b[2Jevil") != std::string::npos);
    std::size_t at = 0;
    while (at < narrow.size()) {
        auto line = narrow.substr(at, narrow.find('\n', at) - at);
        at += line.size() + 1;
        if (const auto dots = line.find("…"); dots != std::string::npos) line.replace(dots, 3, ".");
        CHECK(line.size() <= 30);
    }
    CHECK(gmctl::duration_text(93784) == "1 d 2 h");
    CHECK(gmctl::wrapped("one two three", 8) == "one two\nthree\n");
}

TEST_CASE("ladder: as text with the time between, and for Mermaid, whose grammar a peer's words do not break") {
    using gmctl::ladder_mermaid;
    using gmctl::ladder_text;
    auto request_in = drawn(request("REGISTER", "c1"), false, false);
    const gmctl::LadderPlan plan;
    const auto text = ladder_text(plan, request_in, request_in.microseconds - 12'340);
    CHECK(
        text.starts_with("22:01:02.123  phone -> gateway  10.1.0.2:5062 -> 10.1.0.1:6100/UDP, ESP set 7 (+12.3 ms)\n"
                         "    REGISTER sip:ims.example SIP/2.0\n"));
    CHECK(text.find('\r') == std::string::npos);
    CHECK(text.ends_with("\n    \n\n"));
    CHECK(ladder_mermaid(plan, request_in, 0) == "    phone->>gateway: REGISTER, ESP set 7\n");
    CHECK(ladder_mermaid(plan, drawn("SIP/2.0 401 No;end#35\x1b\r\n\r\n", true, false), 0) ==
          "    gateway-->>phone: 401 No end 35\\x1b, ESP set 7\n");
    CHECK(ladder_mermaid(plan, drawn(request("REGISTER", "c1"), true, true), 0) == "    gateway->>core: REGISTER\n");
    CHECK(gmctl::ladder_mermaid_head(plan).starts_with("sequenceDiagram\n"));
}
