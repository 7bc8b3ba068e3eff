#include "daemon/cluster/record.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/algorithms.h"
#include "xfrm/record_digest.h"

namespace gmgate::daemon {
namespace {

using nlohmann::json;
constexpr int kVersion = 1;
constexpr std::size_t kSets = 8, kIdentities = 64;

std::int64_t wall_of(TimePoint time, const Clock& clock) {
    const auto left = time - clock.now();
    return std::chrono::duration_cast<milliseconds>((clock.wall() + left).time_since_epoch()).count();
}

// Throws json::exception for a time that no registration has: the store may say any number.
TimePoint time_of(std::int64_t wall, const Clock& clock) {
    constexpr std::int64_t kFarthest = std::int64_t{10} * 366 * 86400 * 1000;
    const auto now = std::chrono::duration_cast<milliseconds>(clock.wall().time_since_epoch()).count();
    if (wall < now - kFarthest || wall > now + kFarthest)
        throw json::other_error::create(500, "a time", static_cast<const json*>(nullptr));
    const std::chrono::system_clock::time_point at{milliseconds(wall)};
    return clock.now() + std::chrono::duration_cast<TimePoint::duration>(at - clock.wall());
}

std::vector<std::string> texts_of(const std::vector<Impu>& impus) {
    std::vector<std::string> texts;
    for (const auto& impu : impus) texts.push_back(impu.value);
    return texts;
}

std::vector<Impu> impus_of(const json& texts) {
    std::vector<Impu> impus;
    for (const auto& text : texts) impus.emplace_back(text.get<std::string>());
    return impus;
}

std::string text_of(const std::optional<Address>& address) { return address ? address->to_string() : std::string(); }

json set_json(const StoredSet& set, const Clock& clock) {
    const auto& p = set.parameters;
    return {{"number", set.number.value},
            {"state", static_cast<int>(set.state)},
            {"ue", p.ue.to_string()},
            {"gateway", p.gateway.to_string()},
            {"ports", {p.port_uc.value, p.port_us.value, p.port_pc.value, p.port_ps.value}},
            {"spis", {p.spi_uc.value, p.spi_us.value, p.spi_pc.value, p.spi_ps.value}},
            {"alg", to_string(p.algorithms.alg)},
            {"ealg", to_string(p.algorithms.ealg)},
            {"uenc", p.mode == xfrm::Mode::udp_enc_tun ? set.port_uenc.value : 0},
            {"inner", {text_of(p.inner), text_of(set.inner)}},
            {"server", set.security_server},
            {"client", set.security_client},
            {"expires", wall_of(set.expires, clock)},
            {"used", set.in_use}};
}

// Throws json::exception for what is not there or of another type.
StoredSet set_of(const json& value, const Clock& clock, SetState first) {
    StoredSet set;
    set.number = SetNumber{value.at("number").get<std::uint32_t>()};
    const int state = value.at("state").get<int>();
    const auto ue = Address::parse(value.at("ue").get<std::string>());
    const auto gateway = Address::parse(value.at("gateway").get<std::string>());
    const auto alg = parse_alg(value.at("alg").get<std::string>());
    const auto ealg = parse_ealg(value.at("ealg").get<std::string>());
    if (state < static_cast<int>(first) || state > static_cast<int>(SetState::old) || !ue || !gateway || !alg ||
        !ealg || set.number.value == 0)
        throw json::other_error::create(500, "a set", static_cast<const json*>(nullptr));
    set.state = static_cast<SetState>(state);
    const auto port = [&](std::size_t i) { return Port{value.at("ports").at(i).get<std::uint16_t>()}; };
    const auto spi = [&](std::size_t i) { return Spi{value.at("spis").at(i).get<std::uint32_t>()}; };
    set.parameters = {.ue = *ue,
                      .gateway = *gateway,
                      .port_uc = port(0),
                      .port_us = port(1),
                      .port_pc = port(2),
                      .port_ps = port(3),
                      .spi_uc = spi(0),
                      .spi_us = spi(1),
                      .spi_pc = spi(2),
                      .spi_ps = spi(3),
                      .algorithms = {*alg, *ealg}};
    if (const auto port_uenc = value.at("uenc").get<std::uint16_t>(); port_uenc != 0) {
        set.parameters.mode = xfrm::Mode::udp_enc_tun;
        set.port_uenc = Port{port_uenc};
        set.parameters.inner = Address::parse(value.at("inner").at(0).get<std::string>());
        set.inner = Address::parse(value.at("inner").at(1).get<std::string>());
    }
    set.security_server = value.at("server").get<std::string>();
    set.security_client = value.at("client").get<std::string>();
    set.expires = time_of(value.at("expires").get<std::int64_t>(), clock);
    set.in_use = value.at("used").get<bool>();
    return set;
}

// As set_of().
StoredRegistration row_of(const json& value, const Clock& clock) {
    StoredRegistration row;
    row.key = {Impi{value.at("impi").get<std::string>()}, value.at("instance").get<std::string>(),
               value.at("reg-id").get<std::string>()};
    row.token = value.at("token").get<std::string>();
    row.contact_uri = value.at("contact").get<std::string>();
    row.realm_id = value.at("realm").get<std::string>();
    const int transport = value.at("transport").get<int>();
    row.transport = transport == 1 ? sip::Transport::tcp : sip::Transport::udp;
    row.expires = time_of(value.at("expires").get<std::int64_t>(), clock);
    row.impus = impus_of(value.at("impus"));
    row.service_route = value.at("route").get<std::vector<std::string>>();
    row.authorized_as = {value.at("as").at(0).get<std::string>(), value.at("as").at(1).get<std::string>(),
                         value.at("as").at(2).get<std::string>()};
    for (const auto& one : value.at("identities"))
        row.identities.push_back({Impu{one.at("aor").get<std::string>()}, impus_of(one.at("impus")),
                                  one.at("route").get<std::vector<std::string>>(),
                                  time_of(one.at("expires").get<std::int64_t>(), clock)});
    const auto first = value.contains("challenge") ? SetState::temporary : SetState::established;
    for (const auto& one : value.at("sets")) row.sets.push_back(set_of(one, clock, first));
    return row;
}

/// The head of a CBOR item; nothing when it is cut off or of a kind that encode_row() does not write: tags, and lengths
/// that are told later.
struct Head {
    unsigned kind = 0;  ///< RFC 8949 §3.1: major type
    std::uint64_t value = 0;
};
std::optional<Head> take_head(std::string_view& octets) {
    if (octets.empty()) return std::nullopt;
    const unsigned first = static_cast<std::uint8_t>(octets.front());
    octets.remove_prefix(1);
    Head head{first >> 5U, first & 0x1fU};
    constexpr unsigned kInOneOctet = 24, kTag = 6;
    if (head.kind == kTag || head.value > kInOneOctet + 3) return std::nullopt;
    if (head.value < kInOneOctet) return head;
    const std::size_t size = std::size_t{1} << (head.value - kInOneOctet);
    if (octets.size() < size) return std::nullopt;
    head.value = 0;
    for (const char c : octets.substr(0, size)) head.value = head.value << 8U | static_cast<std::uint8_t>(c);
    octets.remove_prefix(size);
    return head;
}

/// Whether nothing in it lies deeper than in a row. The library reads what lies in something else by calling itself, so
/// that whoever writes into the store could end this process by a few thousand brackets.
bool is_shallow(std::string_view octets) {
    constexpr std::size_t kDepth = 8;
    constexpr unsigned kOctets = 2, kText = 3, kArray = 4, kMap = 5;
    std::array<std::uint64_t, kDepth> left{1};  // items to come, level by level
    for (std::size_t depth = 1; depth > 0;) {
        if (left.at(depth - 1) == 0) {
            --depth;
            continue;
        }
        --left.at(depth - 1);
        const auto head = take_head(octets);
        if (!head) return false;
        if (head->kind == kOctets || head->kind == kText) {
            if (head->value > octets.size()) return false;
            octets.remove_prefix(head->value);
        } else if (head->kind == kArray || head->kind == kMap) {
            if (depth == kDepth || head->value > octets.size()) return false;
            left.at(depth++) = head->value * (head->kind == kMap ? 2 : 1);
        }
    }
    return true;
}

// As set_of().
std::optional<HandedChallenge> challenge_of(const json& value) {
    const auto at = value.find("challenge");
    if (at == value.end()) return std::nullopt;
    HandedChallenge challenge{.nonce = at->at("nonce").get<std::string>(), .came_over = {}};
    if (const auto over = at->at("over").get<std::uint32_t>(); over != 0) challenge.came_over = SetNumber{over};
    return challenge;
}

constexpr char kChallenge = '\1';  // no header value has it

}  // namespace

std::string record_field(const ContactKey& key) { return key.impi.value + '\n' + key.instance + '\n' + key.reg_id; }

ContactKey challenge_place(const ChallengeKey& key) {
    return {key.impi, key.ue.to_string(), std::string(1, kChallenge) + (key.is_emergency ? "sos" : "")};
}

std::optional<ChallengeKey> challenge_at(const ContactKey& place) {
    const auto ue = Address::parse(place.instance);
    if (!ue || place.reg_id.empty() || place.reg_id.front() != kChallenge) return std::nullopt;
    return ChallengeKey{place.impi, *ue, place.reg_id.size() > 1};
}

std::string ClusterRecord::field() const {
    if (!challenge) return record_field(row.key);
    const ChallengeKey key{row.key.impi, row.sets.front().parameters.ue, is_emergency_contact(row.key)};
    return record_field(challenge_place(key));
}

std::string encode_row(const StoredRegistration& row, const Clock& clock, const HandedChallenge* challenge) {
    auto identities = json::array(), sets = json::array();
    for (const auto& one : row.identities)
        identities.push_back({{"aor", one.aor.value},
                              {"impus", texts_of(one.impus)},
                              {"route", one.service_route.value()},
                              {"expires", wall_of(one.expires, clock)}});
    for (const auto& set : row.sets) sets.push_back(set_json(set, clock));
    json value{{"impi", row.key.impi.value},
               {"instance", row.key.instance},
               {"reg-id", row.key.reg_id},
               {"token", row.token},
               {"contact", row.contact_uri},
               {"realm", row.realm_id},
               {"transport", static_cast<int>(row.transport)},
               {"expires", wall_of(row.expires, clock)},
               {"impus", texts_of(row.impus)},
               {"route", row.service_route},
               {"as", {row.authorized_as.realm, row.authorized_as.uri, row.authorized_as.algorithm}},
               {"identities", std::move(identities)},
               {"sets", std::move(sets)}};
    if (challenge)
        value["challenge"] = {{"nonce", challenge->nonce},
                              {"over", challenge->came_over ? challenge->came_over->value : 0}};
    std::string octets;
    json::to_cbor(value, octets);
    return octets;
}

xfrm::RecordDigest digest_of(std::string_view row) { return xfrm::digest_of_record(row); }

std::string encode_record(std::string_view row, const std::vector<xfrm::SealedKeys>& seals) {
    std::string octets{static_cast<char>(kVersion), static_cast<char>(seals.size())};
    for (const auto& seal : seals) octets.append(reinterpret_cast<const char*>(seal.data()), seal.size());
    octets += row;
    return octets;
}

Result<ClusterRecord> decode_record(std::string_view octets, const Clock& clock) {
    const auto none = [](const char* why) {
        return failure(Reaction::reject, std::string("not a record of this cluster's nodes: ") + why);
    };
    if (octets.size() < 2 || octets[0] != kVersion) return none("another version");
    const auto count = static_cast<std::uint8_t>(octets[1]);
    octets.remove_prefix(2);
    constexpr std::size_t size = std::tuple_size_v<xfrm::SealedKeys>;
    if (count > kSets || octets.size() < count * size) return none("cut off");
    ClusterRecord record;
    for (std::size_t i = 0; i < count; ++i) {
        std::ranges::copy(octets.substr(i * size, size), record.seals.emplace_back().begin());
    }
    octets.remove_prefix(count * size);
    record.digest = digest_of(octets);
    if (!is_shallow(octets)) return none("no values as a node writes them");
    try {  // the library's way of saying that a value is missing; it ends here
        const auto value = json::from_cbor(octets.begin(), octets.end(), true, false);
        if (value.is_discarded()) return none("no values");
        record.row = row_of(value, clock);
        record.challenge = challenge_of(value);
    } catch (const json::exception&) {
        return none("a value is missing or of another kind");
    }
    if (record.row.sets.size() != count || record.row.identities.size() > kIdentities || record.row.key.impi.empty())
        return none("its parts do not fit");
    if (record.challenge && (count != 1 || record.row.sets.front().state != SetState::temporary))
        return none("its parts do not fit");
    return record;
}

}  // namespace gmgate::daemon
