#include "tests/bench/registers.h"

#include <fstream>
#include <stdexcept>

namespace gmgate::bench {
namespace {

/// Lines as they are written here end in LF; SIP wants CRLF.
std::string crlf(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') out += '\r';
        out += c;
    }
    return out;
}

}  // namespace

std::string handset_value(std::string_view name) {
    std::ifstream file(GMGATE_TEST_DATA "/handset_headers.txt");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(std::string(name) + " | ")) return line.substr(line.rfind(" | ") + 3);
    throw std::runtime_error("no value of \"" + std::string(name) + "\" in " GMGATE_TEST_DATA "/handset_headers.txt");
}

std::string long_register(std::string_view phone) {
    return crlf(
        "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\n"
        "Via: SIP/2.0/UDP 10.46.0.3:5060;branch=z9hG4bK-524287-1---8a5f0c1b2e3d4f60;rport\n"
        "Max-Forwards: 70\n"
        "From: <sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>;tag=4fa3b2c1\n"
        "To: <sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>\n"
        "Contact: <sip:001010000000001@10.46.0.3:5060>;+sip.instance=\"<urn:gsma:imei:35245510-000000-0>\";"
        "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip;expires=600000\n"
        "Call-ID: iQzQ4bTlXn0aPz3dJd0q2w@10.46.0.3\n"
        "CSeq: 1 REGISTER\n"
        "Require: sec-agree\n"
        "Proxy-Require: sec-agree\n"
        "Supported: path,gruu\n"
        "Authorization: Digest username=\"001010000000001@ims.mnc001.mcc001.3gppnetwork.org\","
        "realm=\"ims.mnc001.mcc001.3gppnetwork.org\",uri=\"sip:ims.mnc001.mcc001.3gppnetwork.org\",nonce=\"\",response=\"\"\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010019B01\n"
        "Security-Client: " +
        handset_value(phone) +
        "\n"
        "Content-Length: 0\n"
        "\n");
}

std::string compact_register(std::string_view phone) {
    return crlf(
        "REGISTER sip:ims.mnc000.mcc460.3gppnetwork.org SIP/2.0\n"
        "f: <sip:460001234567890@ims.mnc000.mcc460.3gppnetwork.org>;tag=3187652917\n"
        "t: <sip:460001234567890@ims.mnc000.mcc460.3gppnetwork.org>\n"
        "CSeq: 1187651917 REGISTER\n"
        "i: 1187651917_78432144@2409:8807:8110:3a7::1\n"
        "v: SIP/2.0/UDP [2409:8807:8110:3a7::1]:5060;branch=z9hG4bK3452185462\n"
        "Max-Forwards: 70\n"
        "m: <sip:460001234567890@[2409:8807:8110:3a7::1]:5060>;+sip.instance=\"<urn:gsma:imei:86400303-123456-0>\";+g.3gpp.smsip\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-TDD; utran-cell-id-3gpp=460005A8A0C2F001\n"
        "k: path,sec-agree\n"
        "Require: sec-agree\n"
        "Proxy-Require: sec-agree\n"
        "Authorization: Digest uri=\"sip:ims.mnc000.mcc460.3gppnetwork.org\",username=\"460001234567890@ims.mnc000.mcc460.3gppnetwork.org\","
        "response=\"\",realm=\"ims.mnc000.mcc460.3gppnetwork.org\",nonce=\"\"\n"
        "Expires: 600000\n"
        "Security-Client: " +
        handset_value(phone) +
        "\n"
        "l: 0\n"
        "\n");
}

}  // namespace gmgate::bench
