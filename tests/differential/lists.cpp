#include "tests/differential/lists.h"

#include <cctype>
#include <fstream>
#include <stdexcept>

namespace gmgate::differential {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
    const auto begin = text.find_first_not_of(kSpace);
    return begin == std::string_view::npos ? std::string_view{}
                                           : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string joined(std::size_t count, std::string_view piece, std::string_view separator) {
    std::string out;
    for (std::size_t i = 0; i < count; ++i) out.append(i ? separator : "").append(piece);
    return out;
}

}  // namespace

std::vector<std::string> known_lists() {
    std::vector<std::string> out;
    std::ifstream file(GMGATE_TEST_DATA "/handset_headers.txt");
    for (std::string line; std::getline(file, line);)
        if (!line.starts_with('#')) out.push_back(line.substr(line.rfind(" | ") + 3));
    if (out.size() < 20)
        throw std::runtime_error("the values of phones are missing: " GMGATE_TEST_DATA "/handset_headers.txt");

    for (const char* text : {
             // RFC 3329 §4 and Appendix A
             "digest",
             "tls",
             "ipsec-ike",
             "ipsec-ike;q=0.1",
             "tls;q=0.2",
             "ipsec-ike;q=0.1, tls;q=0.2",
             "ipsec-ike; q=0.1, tls; q=0.2",
             "tls;q=0.2, digest;d-alg=MD5;d-qop=auth;d-ver=\"0123456789abcdef0123456789abcdef\"",
             "ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=des-ede3-cbc;spi=0000012345;port1=5062;port2=5063",
             // q (RFC 3329 §2.2), equal parameters, numbers (TS 33.203 Annex H)
             "digest;d-alg=MD5;d-ver=\"0123\"",
             "digest;d-alg=\"MD5\"",
             "tls;q=0",
             "tls;q=0.",
             "tls;q=0.100",
             "tls;q=1",
             "tls;q=1.000",
             "tls;Q=0.5",
             "tls;q=1.001",
             "tls;q=0.1234",
             "tls;q=2",
             "tls;q=.5",
             "tls;q",
             "tls;q=\"0.1\"",
             "tls;q=0.1;q=0.2",
             "ipsec-3gpp;alg=null;ALG=null",
             "x;mediasec;mediasec",
             "ipsec-3gpp;alg=HMAC-SHA-1-96;spi-c=1111",
             "IPSEC-3GPP;SPI-C=1111;Alg=hmac-sha-1-96",
             "ipsec-3gpp;spi-c=0000001111",
             "ipsec-3gpp;spi-c=0",
             "ipsec-3gpp;spi-s=4294967295",
             "ipsec-3gpp;spi-s=4294967296",
             "ipsec-3gpp;spi-c=00000001111",
             "ipsec-3gpp;spi-c=0x11",
             "ipsec-3gpp;spi-c",
             "ipsec-3gpp;port-c=0",
             "ipsec-3gpp;port-c=5060",
             "ipsec-3gpp;port-s=65535",
             "ipsec-3gpp;port-s=65536",
             "ipsec-3gpp;port-s=0001358",
             "ipsec-3gpp;port-c=http",
             "other;spi-c=zero;port-c=0",
             // pairs that parse and are never chosen
             "ipsec-3gpp;alg=aes-gmac;ealg=aes-cbc",
             "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-gcm",
             "ipsec-3gpp;alg=null;ealg=null",
             "ipsec-3gpp;alg=null;prot=ah",
             "ipsec-3gpp;alg=null;mod=UDP-enc-tun",
             "msrp-tls;mediasec",
             // separators, blanks and folds
             "",
             ",",
             ", ,",
             ",tls",
             "tls,",
             "tls,,digest",
             "tls ,\t, digest",
             "tls;",
             "tls;;a=b",
             ";a=b",
             "tls ; q = 0.1 ,\r\n digest ; a = b",
             "tls;\r\n \r\n\ta=b",
             "tls digest",
             "tls;a b",
             "tls;a=b c",
             "tls=1",
             "tls;a=",
             "tls;=b",
             "tls;a=b=c",
             "tls;a==b",
             // tokens, hosts, quoted strings
             "t@ls",
             "\"tls\"",
             "t/ls",
             "-.!%*_+`'~;-.!%*_+`'~=-.!%*_+`'~",
             "tls;a=[2001:db8::1]",
             "tls;a=1:2",
             "tls;a=]:[",
             "tls;a=b/c",
             "tls;a/b=c",
             "tls;a=b?c",
             "tls;a=<b>",
             "tls;a=<b,c>",
             "tls;a=(b)",
             "tls;a=\xc3\xa9",
             "tls;a=\"\xc3\xa9\"",
             "tls;a=\"\"",
             "tls;a=\"b;c,d=e\"",
             "tls;a=\"b\\\"c\", digest",
             "tls;a=\"b\\\\\"",
             "tls;a=\"b",
             "tls;a=\"b\\\"",
             "tls;a=\"b\"c",
             "tls;a=b\"c\"",
             "tls;\"a\"=b",
             "tls;a=\"b\tc\"",
             "tls;a=\"b\r\n c\"",
             "tls;a=\"b\"\"c\"",
         })
        out.emplace_back(text);

    // limits.h: at the limit and one beyond
    out.push_back(joined(32, "tls", ","));
    out.push_back(joined(33, "tls", ","));
    for (const std::size_t count : {32, 33}) {
        std::string list = "tls";
        for (std::size_t i = 0; i < count; ++i) list += ";p" + std::to_string(i);
        out.push_back(list);
    }
    out.push_back("tls;a=" + std::string(8192 - 6, 'x'));
    out.push_back("tls;a=" + std::string(8192 - 5, 'x'));
    return out;
}

std::string as_field_value(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_fold =
            text.substr(i, 2) == "\r\n" && i + 2 < text.size() && (text[i + 2] == ' ' || text[i + 2] == '\t');
        if (is_fold) {
            out += "\r\n";
            ++i;
        } else {
            out += text[i] == '\0' || text[i] == '\r' || text[i] == '\n' ? ' ' : text[i];
        }
    }
    return std::string(trimmed(out));
}

std::vector<std::string> comma_pieces(std::string_view list) {
    std::vector<std::string> out(1);
    bool is_quoted = false;
    for (std::size_t i = 0; i < list.size(); ++i) {
        const char c = list[i];
        if (c == ',' && !is_quoted) {
            out.emplace_back();
            continue;
        }
        out.back() += c;
        if (is_quoted && c == '\\' && i + 1 < list.size()) out.back() += list[++i];
        else if (c == '"') is_quoted = !is_quoted;
    }
    for (std::string& piece : out) piece = std::string(trimmed(piece));
    return out;
}

std::string ListMaker::blanks() {
    static const std::vector<std::string_view> kBlanks{"", "", "", "", "", " ", " ", "  ", "\t", "\r\n ", " \r\n\t"};
    return std::string(pick(kBlanks));
}

std::string ListMaker::letters_mixed(std::string_view word) {
    std::string out(word);
    if (one_in(6))
        for (char& c : out)
            if (one_in(2)) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return out;
}

std::string ListMaker::parameter() {
    static const std::vector<std::string_view> kNames{"alg",      "ealg",       "prot", "mod",   "spi-c", "spi-s",
                                                      "port-c",   "port-s",     "q",    "d-alg", "d-qop", "d-ver",
                                                      "mediasec", "preference", "x",    "a-b.c", "spi"};
    static const std::vector<std::string_view> kWords{
        "hmac-sha-1-96", "hmac-md5-96", "aes-cbc", "null", "esp",
        "trans",         "ah",          "MD5",     "auth", "\"0123456789abcdef0123456789abcdef\"",
        "\"a;b,c\"",     "\"a\\\"b\"",  "\"\"",    "1",    "x.y",
        "[::1]"};
    static const std::vector<std::string_view> kPreferences{
        "0", "0.1", "0.12", "0.123", "1", "1.0", "1.00", "1.000", "0.5", "0.9", "0.", "0.1234", "1.1", "2", ".5", "x"};
    const std::string_view name = pick(kNames);
    std::string value;
    if (name == "q") value = pick(kPreferences);
    else if (name.starts_with("spi"))
        value = one_in(12) ? std::string(pick({"0", "4294967296", "x1", "00000000001"}))
                           : std::to_string(1 + below(4294967295U));
    else if (name.starts_with("port"))
        value = one_in(12) ? std::string(pick({"0", "65536", "99999999999", "a"})) : std::to_string(1 + below(65535));
    else if (!one_in(8)) value = one_in(40) ? "a/b" : pick(kWords);
    std::string out = letters_mixed(name);
    if (!value.empty()) out.append(blanks()).append("=").append(blanks()).append(letters_mixed(value));
    return out;
}

std::string ListMaker::generate() {
    static const std::vector<std::string_view> kMechanisms{"ipsec-3gpp", "ipsec-3gpp", "ipsec-3gpp", "tls",
                                                           "digest",     "ipsec-ike",  "sdes-srtp",  "x-y"};
    std::string out;
    const std::size_t entries = 1 + below(5);
    for (std::size_t i = 0; i < entries; ++i) {
        if (i) out.append(blanks()).append(one_in(40) ? ",," : ",").append(blanks());
        out.append(letters_mixed(pick(kMechanisms)));
        std::string names = ";";
        for (std::size_t parameters = below(6); parameters > 0; --parameters) {
            const std::string next = parameter();
            std::string name = next.substr(0, next.find_first_of(" \t\r\n="));
            for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
            const bool is_known = names.find(";" + name + ";") != std::string::npos;
            if (is_known && !one_in(10)) continue;
            names += name + ";";
            out.append(blanks()).append(one_in(60) ? ";;" : ";").append(blanks()).append(next);
        }
    }
    return as_field_value(out);
}

std::string ListMaker::mutate(std::string_view list) {
    constexpr std::string_view kCharacters = ",;=\"\\ \t09az.-/[]:<>()@{}~?%'\x7f\x80\xe9";
    std::string out(list);
    for (std::size_t changes = 1 + below(3); changes > 0 && !out.empty(); --changes) {
        const std::size_t at = below(out.size());
        const std::size_t length = 1 + below(one_in(4) ? 40 : 3);
        switch (below(6)) {
            case 0:
                out.erase(at, length);
                break;
            case 1:
                out.insert(at, 1, kCharacters[below(kCharacters.size())]);
                break;
            case 2:
                out[at] = kCharacters[below(kCharacters.size())];
                break;
            case 3:
                out.insert(below(out.size()), std::string(out, at, length));
                break;
            case 4:
                out.resize(at);
                break;
            default:
                out[at] = static_cast<char>(out[at] ^ 0x20);
                break;
        }
    }
    return as_field_value(out);
}

}  // namespace gmgate::differential
