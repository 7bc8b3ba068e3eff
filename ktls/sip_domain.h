// Whose certificate it is, by the rules for SIP domains: RFC 5922.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct x509_st;

namespace gmgate::ktls {

/// The SIP domain identities of a certificate in lower case, RFC 5922 §7.1: hosts of subjectAltName URIs with scheme
/// sip and no user; when there is none of those, its DNS names; when there is no subjectAltName at all, the Common
/// Name.
std::vector<std::string> sip_domains(const x509_st* certificate);

/// RFC 5922 §7.2: equal without regard to case. No wildcard ("*.example.com" is the name of nobody) and no suffix
/// match.
bool is_for_domain(const x509_st* certificate, std::string_view domain);

}  // namespace gmgate::ktls
