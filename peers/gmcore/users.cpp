#include "users.h"

#include "../common/load_identity.h"
#include "../common/sip_uri.h"
#include "../common/text.h"

#include <toml++/toml.h>

namespace gmgate::peers {
namespace {

std::unexpected<Error> at(const toml::node& node, const std::string& text) {
    return fail("line {}, column {}: {}", node.source().begin.line, node.source().begin.column, text);
}

Result<std::string> text_of(const toml::table& table, std::string_view key) {
    const toml::node* node = table.get(key);
    if (!node) return at(table, fmt::format("'{}' is missing", key));
    const auto value = node->value<std::string>();
    if (!value) return at(*node, fmt::format("'{}' must be a string", key));
    return *value;
}

template <std::size_t N>
Result<std::array<std::uint8_t, N>> hex_of(const toml::table& table, std::string_view key) {
    const auto text = text_of(table, key);
    if (!text) return std::unexpected(text.error());
    const auto octets = array_from_hex<N>(*text);
    if (!octets) return at(*table.get(key), fmt::format("'{}' must be {} hexadecimal digits", key, 2 * N));
    return *octets;
}

Result<AkaSecrets> secrets_of(const toml::table& table) {
    const auto k = hex_of<16>(table, "k");
    if (!k) return std::unexpected(k.error());
    if (table.contains("op") == table.contains("opc")) return at(table, "give one of 'op' and 'opc'");
    const bool derived = table.contains("op");
    const auto second = hex_of<16>(table, derived ? "op" : "opc");
    if (!second) return std::unexpected(second.error());
    AkaSecrets out{Key<16>(std::span<const std::uint8_t, 16>(*k)), Key<16>(std::span<const std::uint8_t, 16>(*second))};
    if (derived) out.opc = opc_from_op(out.k, out.opc);
    return out;
}

Result<void> only_keys(const toml::table& table, std::initializer_list<std::string_view> known) {
    for (const auto& [key, node] : table)
        if (std::ranges::find(known, key.str()) == known.end())
            return at(node, fmt::format("unknown key '{}'", key.str()));
    return {};
}

Result<std::vector<std::string>> impus_of(const toml::table& table) {
    std::vector<std::string> out;
    const toml::node* node = table.get("impu");
    if (!node) return out;
    if (const auto single = node->value<std::string>()) return std::vector{*single};
    const toml::array* array = node->as_array();
    if (!array) return at(*node, "'impu' must be a URI or a list of URIs");
    for (const toml::node& entry : *array) {
        const auto uri = entry.value<std::string>();
        if (!uri || !SipUri::parse(*uri)) return at(entry, "not a URI");
        out.push_back(*uri);
    }
    return out;
}

Result<std::unique_ptr<User>> user_of(const toml::table& table) {
    if (auto ok = only_keys(table, {"impi", "impu", "k", "op", "opc", "sqn", "amf", "password", "algorithm", "qop"});
        !ok)
        return std::unexpected(ok.error());
    auto out = std::make_unique<User>();
    const auto impi = text_of(table, "impi");
    if (!impi) return std::unexpected(impi.error());
    out->impi = *impi;
    auto impus = impus_of(table);
    if (!impus) return std::unexpected(impus.error());
    out->impus = impus->empty() ? std::vector{"sip:" + out->impi} : std::move(*impus);
    if (table.contains("password")) {
        const auto password = text_of(table, "password");
        if (!password) return std::unexpected(password.error());
        out->password = SecretBytes(as_bytes(*password));
        out->algorithm = DigestAlgorithm::md5;
    } else {
        auto secrets = secrets_of(table);
        if (!secrets) return std::unexpected(secrets.error());
        out->aka = std::move(*secrets);
    }
    if (table.contains("sqn")) {
        const auto sqn = hex_of<6>(table, "sqn");
        if (!sqn) return std::unexpected(sqn.error());
        out->sqn = Sqn::from_octets(*sqn);
    }
    if (table.contains("amf")) {
        const auto amf = hex_of<2>(table, "amf");
        if (!amf) return std::unexpected(amf.error());
        out->amf = *amf;
    }
    if (const toml::node* node = table.get("algorithm")) {
        const auto algorithm = digest_algorithm_from(node->value_or(std::string("?")));
        if (!algorithm || is_aka(*algorithm) != out->aka.has_value())
            return at(*node, "algorithm is MD5 for password users, else AKAv1-MD5, AKAv2-MD5 or AKAv2-SHA-256");
        out->algorithm = *algorithm;
    }
    if (const toml::node* node = table.get("qop")) {
        const std::string qop = node->value_or(std::string());
        if (qop != "auth" && qop != "none") return at(*node, "qop is auth or none");
        out->qop = qop == "none" ? "" : qop;
    }
    return out;
}

}  // namespace

Sqn User::next_sqn() {
    sqn.value = ((sqn.value >> 5) + 1) << 5 & 0xffff'ffff'ffffULL;
    return sqn;
}

std::vector<Binding>& User::live_bindings() {
    std::erase_if(bindings, [now = Clock::now()](const Binding& b) { return b.expires <= now; });
    return bindings;
}

Result<void> UserStore::add(std::unique_ptr<User> user) {
    const std::string impi = user->impi;
    for (const std::string& impu : user->impus) {
        const auto uri = SipUri::parse(impu);
        if (!uri) return fail("user {}: {}", impi, uri.error().text);
        if (!by_aor_.emplace(uri->aor(), user.get()).second && sharing_ == Sharing::refused)
            return fail("user {}: {} belongs to another user", impi, impu);
    }
    if (!users_.emplace(impi, std::move(user)).second) return fail("user {} is given twice", impi);
    return {};
}

Result<void> UserStore::load(const std::string& file) {
    toml::table root;
    try {
        root = toml::parse_file(file);
    } catch (const toml::parse_error& error) {
        return fail("{}: line {}, column {}: {}", file, error.source().begin.line, error.source().begin.column,
                    error.description());
    }
    const auto in_file = [&](const Error& error) { return fail("{}: {}", file, error.text); };
    if (auto ok = only_keys(root, {"realm", "user", "range"}); !ok) return in_file(ok.error());
    realm_ = root["realm"].value_or(realm_);
    if (const toml::array* users = root["user"].as_array()) {
        for (const toml::node& node : *users) {
            if (!node.is_table()) return in_file(at(node, "write [[user]]").error());
            auto user = user_of(*node.as_table());
            if (!user) return in_file(user.error());
            if (auto ok = add(std::move(*user)); !ok) return in_file(ok.error());
        }
    }
    if (const toml::array* ranges = root["range"].as_array()) {
        for (const toml::node& node : *ranges) {
            const toml::table* table = node.as_table();
            if (!table) return in_file(at(node, "write [[range]]").error());
            if (auto ok = only_keys(*table, {"first-imsi", "count", "k", "op", "opc"}); !ok) return in_file(ok.error());
            auto secrets = secrets_of(*table);
            if (!secrets) return in_file(secrets.error());
            UserRange range;
            range.first_imsi = (*table)["first-imsi"].value_or(range.first_imsi);
            range.count = (*table)["count"].value_or(std::size_t{0});
            std::ranges::copy(secrets->k.expose(), range.k.begin());
            std::ranges::copy(secrets->opc.expose(), range.opc.begin());
            add_range(range, "auth", DigestAlgorithm::akav1_md5);
        }
    }
    return {};
}

void UserStore::add_range(const UserRange& range, std::string_view qop, DigestAlgorithm algorithm) {
    for (std::size_t i = 0; i < range.count; ++i) {
        auto user = std::make_unique<User>();
        const std::string imsi = imsi_at(range.first_imsi, i);
        user->impi = imsi + '@' + realm_;
        user->impus = {"sip:" + user->impi};
        user->aka = AkaSecrets{key_at(Key<16>(std::span<const std::uint8_t, 16>(range.k)), i),
                               Key<16>(std::span<const std::uint8_t, 16>(range.opc))};
        user->algorithm = algorithm;
        user->qop = qop;
        // A user that the file describes by itself stays as it is.
        if (!by_impi(user->impi)) (void)add(std::move(user));
    }
}

User* UserStore::by_impi(std::string_view impi) {
    const auto it = users_.find(impi);
    return it == users_.end() ? nullptr : it->second.get();
}

User* UserStore::by_aor(std::string_view uri) {
    const auto parsed = SipUri::parse(uri);
    if (!parsed) return nullptr;
    const auto it = by_aor_.find(parsed->aor());
    return it == by_aor_.end() ? nullptr : it->second;
}

bool UserStore::owns(const User& user, std::string_view uri) {
    const auto parsed = SipUri::parse(uri);
    if (!parsed) return false;
    return std::ranges::any_of(user.impus,
                               [&](const std::string& impu) { return SipUri::parse(impu)->aor() == parsed->aor(); });
}

}  // namespace gmgate::peers
