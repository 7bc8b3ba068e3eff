#include "ktls/sip_domain.h"

#include <algorithm>
#include <memory>
#include <optional>

#include <openssl/x509v3.h>

namespace gmgate::ktls {
namespace {

struct NamesFree {
    void operator()(GENERAL_NAMES* names) const noexcept { GENERAL_NAMES_free(names); }
};

std::string lower(std::string_view text) {
    std::string out(text);
    for (auto& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
}

// A NUL inside a name is an attempt to have "good.example\0.evil.example" read as something else.
std::optional<std::string_view> text_of(const ASN1_STRING* string) {
    const auto* bytes = reinterpret_cast<const char*>(ASN1_STRING_get0_data(string));
    const std::string_view text(bytes, static_cast<std::size_t>(ASN1_STRING_length(string)));
    if (text.empty() || text.find('\0') != std::string_view::npos) return std::nullopt;
    return text;
}

// "sip:example.com", "sip:example.com:5061;transport=tls"; a URI with a user names a person, one with scheme sips is no
// domain identity.
std::optional<std::string> domain_of_uri(std::string_view uri) {
    if (uri.size() < 5 || lower(uri.substr(0, 4)) != "sip:" || uri.find('@') != std::string_view::npos)
        return std::nullopt;
    const auto rest = uri.substr(4);
    const auto host = rest.substr(0, rest.find_first_of(":;?/"));
    return host.empty() ? std::nullopt : std::optional(lower(host));
}

}  // namespace

std::vector<std::string> sip_domains(const x509_st* certificate) {
    std::vector<std::string> from_uris, from_dns;
    const std::unique_ptr<GENERAL_NAMES, NamesFree> names(
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
        if (name->type != GEN_URI && name->type != GEN_DNS) continue;
        const auto text = text_of(name->d.ia5);
        if (!text) continue;
        if (name->type == GEN_DNS) from_dns.push_back(lower(*text));
        else if (auto domain = domain_of_uri(*text)) from_uris.push_back(std::move(*domain));
    }
    if (!from_uris.empty()) return from_uris;
    if (names || X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1) >= 0)
        return from_dns;  // an unreadable one is one as well
    char common_name[256];
    const int size =
        X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common_name, sizeof common_name);
    if (size <= 0 || std::string_view(common_name, static_cast<std::size_t>(size)).find('\0') != std::string_view::npos)
        return {};
    return {lower(std::string_view(common_name, static_cast<std::size_t>(size)))};
}

bool is_for_domain(const x509_st* certificate, std::string_view domain) {
    if (domain.empty() || domain.find('*') != std::string_view::npos) return false;
    const auto names = sip_domains(certificate);
    return std::ranges::find(names, lower(domain)) != names.end();
}

}  // namespace gmgate::ktls
