#include "tests/bench/compare/phone_texts.h"

#include <ranges>
#include <vector>

#include <fmt/format.h>

namespace gmgate::bench {
namespace {

constexpr std::string_view kNonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";

std::string security_client(const Agreement& offer) {
    std::string out;
    for (const char* pair : {"hmac-md5-96;ealg=aes-cbc", "hmac-sha-1-96;ealg=null", "hmac-sha-1-96;ealg=aes-cbc"})
        out += fmt::format("{}ipsec-3gpp;prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={};alg={}",
                           out.empty() ? "" : ", ", offer.spi_uc, offer.spi_us, offer.port_uc, kUeServer, pair);
    return out;
}

std::string identity(const Phone& phone) { return fmt::format("{}@{}", user_of(phone.number), kRealm); }

std::string contact_uri(const Phone& phone, std::string_view transport) {
    return fmt::format("<sip:{}@{}:{}{}>", user_of(phone.number), phone.host.text(), kUeServer,
                       transport == "TCP" ? ";transport=tcp" : "");
}

}  // namespace

std::string user_of(std::uint32_t number) { return fmt::format("00101{:010}", number + 1); }

std::string register_text(const Phone& phone, std::string_view transport, const std::string& branch,
                          const Agreement* over, Credentials credentials, long expires) {
    const auto id = identity(phone);
    std::string out = fmt::format(
        "REGISTER sip:{0} SIP/2.0\r\nVia: SIP/2.0/{1} {2}:{3};branch={4}\r\nMax-Forwards: 70\r\n"
        "From: <sip:{5}>;tag={6}\r\nTo: <sip:{5}>\r\nCall-ID: reg-{6}@{2}\r\nCSeq: {7} REGISTER\r\n",
        kRealm, transport, phone.host.text(), over ? kUeServer : 5060, branch, id, phone.number, phone.cseq);
    out += fmt::format(
        "Contact: {};expires={};+g.3gpp.smsip;+sip.instance=\"<urn:gsma:imei:35245510-{}-0>\";"
        "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"\r\n",
        contact_uri(phone, transport), expires, 100000 + phone.number);
    out +=
        "Supported: path,sec-agree\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\n"
        "Allow: INVITE,BYE,CANCEL,ACK,NOTIFY,UPDATE,REFER,PRACK,INFO,MESSAGE,OPTIONS\r\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010019B01\r\n";
    out += fmt::format("Security-Client: {}\r\n", security_client(phone.offered));
    if (over) out += fmt::format("Security-Verify: {}\r\n", over->security_server);
    out += fmt::format("Authorization: Digest username=\"{}\",realm=\"{}\",nonce=\"{}\",uri=\"sip:{}\",response=\"{}\"",
                       id, kRealm, credentials == Credentials::none ? "" : kNonce, kRealm,
                       credentials == Credentials::response ? "6629fae49393a05397450978507c4ef1" : "");
    if (credentials == Credentials::response)
        out += fmt::format(",algorithm=AKAv1-MD5,qop=auth,nc=0000000{},cnonce=\"0a4f113b\"", phone.cseq % 10);
    return out + fmt::format("\r\nExpires: {}\r\nContent-Length: 0\r\n\r\n", expires);
}

std::string request_text(const Phone& phone, std::string_view transport, std::string_view method,
                         const std::string& uri, const Saying& saying) {
    const auto id = identity(phone);
    std::string out = fmt::format(
        "{0} {1} SIP/2.0\r\nVia: SIP/2.0/{2} {3}:{4};branch={5}\r\nMax-Forwards: 70\r\n{6}From: <sip:{7}>;tag={8}\r\n"
        "To: {9}\r\nCall-ID: {10}\r\nCSeq: {11} {0}\r\n",
        method, uri, transport, phone.host.text(), kUeServer, saying.branch, saying.route, id, saying.from_tag,
        saying.to, saying.call_id, saying.cseq);
    if (method != "ACK")
        out += fmt::format(
            "P-Preferred-Identity: <sip:{}>\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\nSecurity-Verify: {}\r\n"
            "Contact: {}\r\n",
            id, phone.agreed.security_server, contact_uri(phone, transport));
    if (!saying.content_type.empty()) out += fmt::format("Content-Type: {}\r\n", saying.content_type);
    return out + fmt::format("Content-Length: {}\r\n\r\n{}", saying.body.size(), saying.body);
}

std::string answer_text(std::string_view request) {
    std::string out = "SIP/2.0 200 OK\r\n";
    for (auto at = request.find("\r\n") + 2; !request.substr(at).starts_with("\r\n");) {
        const auto end = request.find("\r\n", at);
        const auto line = request.substr(at, end - at);
        at = end + 2;
        const bool is_to = is_field(line, "To", "t");
        if (!is_to && !is_field(line, "Via", "v") && !is_field(line, "From", "f") && !is_field(line, "Call-ID", "i") &&
            !is_field(line, "CSeq") && !is_field(line, "Record-Route"))
            continue;
        out += line;
        if (is_to && line.find("tag=") == std::string_view::npos) out += ";tag=ue";
        out += "\r\n";
    }
    return out + "Content-Length: 0\r\n\r\n";
}

std::string dialog_route(std::string_view response) {
    std::vector<std::string> entries;
    for (auto at = response.find("\r\nRecord-Route:"); at != std::string_view::npos;) {
        auto value = response.substr(at + 15, response.find("\r\n", at + 2) - at - 15);
        at = response.find("\r\nRecord-Route:", at + 2);
        for (auto entry : value | std::views::split(std::string_view(","))) {
            std::string text(entry.begin(), entry.end());
            text.erase(0, text.find_first_not_of(' '));
            entries.push_back(text);
        }
    }
    std::string out;
    for (const auto& entry : entries | std::views::reverse) out += (out.empty() ? "Route: " : ", ") + entry;
    return out.empty() ? out : out + "\r\n";
}

std::string_view session_description() {
    return "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 104\r\n"
           "a=rtpmap:104 AMR-WB/16000/1\r\n";
}

}  // namespace gmgate::bench
