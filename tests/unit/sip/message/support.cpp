#include "tests/unit/sip/message/support.h"

namespace gmgate::sip::test {

std::string handset_register() {
    return crlf(
        "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\n"
        "Via: SIP/2.0/UDP [2001:db8::a:b]:6800;branch=z9hG4bKnashds7;rport\n"
        "Max-Forwards: 70\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-FDD; utran-cell-id-3gpp=00101000100000001\n"
        "From: <sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>;tag=4fa3\n"
        "To: <sip:001010000000001@ims.mnc001.mcc001.3gppnetwork.org>\n"
        "Contact: <sip:001010000000001@[2001:db8::a:b]:6800>;+sip.instance=\"<urn:gsma:imei:35245510-000000-0>\";expires=600000\n"
        "Call-ID: apb03a0s09dkjdfglkj49111\n"
        "Authorization: Digest username=\"001010000000001@ims.mnc001.mcc001.3gppnetwork.org\", "
        "realm=\"ims.mnc001.mcc001.3gppnetwork.org\", nonce=\"\", uri=\"sip:ims.mnc001.mcc001.3gppnetwork.org\", response=\"\"\n"
        "Security-Client: ipsec-3gpp;prot=esp;mod=trans;spi-c=17775;spi-s=17776;port-c=6802;port-s=6800;alg=hmac-md5-96;ealg=aes-cbc, "
        "ipsec-3gpp;prot=esp;mod=trans;spi-c=17775;spi-s=17776;port-c=6802;port-s=6800;alg=hmac-sha-1-96;ealg=null\n"
        "Require: sec-agree\n"
        "Proxy-Require: sec-agree\n"
        "CSeq: 1 REGISTER\n"
        "Supported: path\n"
        "Content-Length: 0\n"
        "\n");
}

}  // namespace gmgate::sip::test
