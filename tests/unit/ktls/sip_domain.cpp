// RFC 5922: whose SIP domain a certificate is for.
#include <memory>

#include <doctest/doctest.h>
#include <openssl/x509v3.h>

#include "ktls/sip_domain.h"

using namespace gmgate::ktls;

namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

/// `names` as in openssl's configuration, "URI:sip:example.com,DNS:example.com"; empty: no subjectAltName.
Certificate certificate(const std::string& names, const std::string& common_name = "cn.example.com") {
    Certificate made(X509_new(), X509_free);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
    if (names.empty()) return made;
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
    REQUIRE(extension != nullptr);
    X509_add_ext(made.get(), extension, -1);
    X509_EXTENSION_free(extension);
    return made;
}

bool is_for(const std::string& names, const std::string& domain) {
    return is_for_domain(certificate(names).get(), domain);
}

}  // namespace

TEST_CASE("F-5, RFC 5922 7.1: a sip URI without user decides, DNS names count only where there is none") {
    CHECK(is_for("URI:sip:example.com", "example.com"));
    CHECK(is_for("URI:sip:example.com,DNS:host.example.com", "example.com"));
    CHECK_FALSE(is_for("URI:sip:example.com,DNS:host.example.com", "host.example.com"));
    CHECK(is_for("DNS:a.example.com,DNS:b.example.com", "b.example.com"));
    CHECK(is_for("URI:sips:example.com,DNS:host.example.com", "host.example.com"));
    CHECK_FALSE(is_for("URI:sips:example.com", "example.com"));
    CHECK_FALSE(is_for("URI:sip:alice@example.com", "example.com"));
    CHECK_FALSE(is_for("URI:http://example.com", "example.com"));
    CHECK(is_for("URI:sip:example.com:5061;transport=tls", "example.com"));
    CHECK(is_for("URI:SIP:Example.COM", "example.com"));
}

TEST_CASE("F-5, RFC 5922 7.1: the Common Name counts only without any subjectAltName") {
    CHECK(is_for("", "cn.example.com"));
    CHECK_FALSE(is_for("DNS:other.example.com", "cn.example.com"));
    CHECK_FALSE(is_for("email:someone@example.com", "cn.example.com"));
    CHECK_FALSE(is_for("IP:192.0.2.1", "cn.example.com"));
}

TEST_CASE("F-5, RFC 5922 7.2: no wildcard, no suffix, no case; and a NUL in a name makes it nobody's") {
    CHECK_FALSE(is_for("DNS:*.example.com", "host.example.com"));
    CHECK_FALSE(is_for("DNS:*.example.com", "*.example.com"));
    CHECK_FALSE(is_for("URI:sip:*.example.com", "host.example.com"));
    CHECK_FALSE(is_for("DNS:example.com", "host.example.com"));
    CHECK_FALSE(is_for("DNS:host.example.com", "example.com"));
    CHECK(is_for("DNS:HOST.example.com", "host.EXAMPLE.com"));
    CHECK_FALSE(is_for("DNS:host.example.com", ""));
    const auto made = certificate("");
    GENERAL_NAMES* names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME* name = GENERAL_NAME_new();
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, "good.example.com\0.evil.example.com", 34);
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
    sk_GENERAL_NAME_push(names, name);
    X509_add1_ext_i2d(made.get(), NID_subject_alt_name, names, 0, 0);
    GENERAL_NAMES_free(names);
    CHECK(sip_domains(made.get()).empty());
    CHECK_FALSE(is_for_domain(made.get(), "good.example.com"));
}
