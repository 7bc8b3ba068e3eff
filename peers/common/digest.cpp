#include "digest.h"

#include "text.h"

#include <algorithm>

namespace gmgate::peers {

std::string_view name(DigestAlgorithm algorithm) {
    switch (algorithm) {
        case DigestAlgorithm::md5:
            return "MD5";
        case DigestAlgorithm::akav1_md5:
            return "AKAv1-MD5";
        case DigestAlgorithm::akav2_md5:
            return "AKAv2-MD5";
        case DigestAlgorithm::akav2_sha256:
            return "AKAv2-SHA-256";
    }
    return "MD5";
}

std::optional<DigestAlgorithm> digest_algorithm_from(std::string_view text) {
    using enum DigestAlgorithm;
    if (text.empty()) return md5;
    for (const DigestAlgorithm algorithm : {md5, akav1_md5, akav2_md5, akav2_sha256})
        if (iequals(name(algorithm), text)) return algorithm;
    return std::nullopt;
}

Hash hash_of(DigestAlgorithm algorithm) {
    return algorithm == DigestAlgorithm::akav2_sha256 ? Hash::sha256 : Hash::md5;
}

Result<AuthHeader> AuthHeader::parse(std::string_view value) {
    value = trim(value);
    const auto blank = value.find_first_of(" \t\r\n");
    if (blank == std::string_view::npos) return fail("no scheme in an authentication header");
    AuthHeader out{std::string(value.substr(0, blank))};
    for (const std::string& part : split_list(value.substr(blank), ',')) {
        const auto equals = part.find('=');
        if (equals == std::string::npos)
            continue;  // "auth-int" of an unquoted qop=auth,auth-int: a real phone sends that
        const auto text = trim(std::string_view(part).substr(equals + 1));
        out.add(std::string(trim(std::string_view(part).substr(0, equals))), unquote(text), text.starts_with('"'));
    }
    return out;
}

const std::string* AuthHeader::find(std::string_view parameter) const {
    const auto it = std::ranges::find_if(parameters_, [&](const Parameter& p) { return iequals(p.name, parameter); });
    return it == parameters_.end() ? nullptr : &it->value;
}

std::string AuthHeader::get(std::string_view parameter) const {
    const std::string* value = find(parameter);
    return value ? *value : std::string();
}

void AuthHeader::add(std::string parameter, std::string value, bool quoted) {
    parameters_.push_back({std::move(parameter), std::move(value), quoted});
}

std::string AuthHeader::to_string() const {
    std::string out = scheme_;
    const char* separator = " ";
    for (const Parameter& p : parameters_) {
        out += separator + p.name + '=';
        out += p.quoted ? '"' + p.value + '"' : p.value;
        separator = ",";
    }
    return out;
}

std::string digest_response(const DigestInput& input, ByteView password) {
    const auto text = [](std::string_view t) { return as_bytes(t); };
    std::string a1 =
        hash_hex(input.algorithm, {text(input.username), text(":"), text(input.realm), text(":"), password});
    std::string a2;
    if (iequals(input.qop, "auth-int")) {
        const std::string body = hash_hex(input.algorithm, {text(input.body)});
        a2 = hash_hex(input.algorithm, {text(input.method), text(":"), text(input.uri), text(":"), text(body)});
    } else {
        a2 = hash_hex(input.algorithm, {text(input.method), text(":"), text(input.uri)});
    }
    std::string middle = input.nonce;
    if (!input.qop.empty()) middle += ':' + input.nc + ':' + input.cnonce + ':' + input.qop;
    std::string out = hash_hex(input.algorithm, {text(a1), text(":"), text(middle), text(":"), text(a2)});
    wipe(a1);
    return out;
}

}  // namespace gmgate::peers
