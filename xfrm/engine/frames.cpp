#include "xfrm/engine/frames.h"

#include <algorithm>
#include <limits>

#include "xfrm/algorithms.h"

namespace gmgate::xfrm {
namespace {

template <class Octets>
bool are_zero(const Octets& octets) {
    return std::ranges::all_of(octets, [](std::uint8_t octet) { return octet == 0; });
}

template <std::size_t Limit>
bool take_key(Secret<Limit>& key, std::span<std::uint8_t, Limit> octets, std::uint8_t size) {
    if (size > Limit || !are_zero(octets.subspan(size))) return false;
    key.assign(octets.first(size));
    return true;
}

void put_key(std::span<std::uint8_t> field, std::uint8_t& size, std::span<const std::uint8_t> key) {
    size = static_cast<std::uint8_t>(key.size());
    std::ranges::copy(key, field.begin());
}

constexpr std::size_t kPortsPerFrame =
    (GM_FRAME_LIMIT - sizeof(gm_header) - sizeof(gm_configuration)) / sizeof(gm_ports);
/// Protected endpoints of one gateway: 64k ranges would be a configuration nobody has.
constexpr std::size_t kRangesLimit = 65536;

}  // namespace

FrameWriter::FrameWriter(gm_kind kind, std::uint32_t sequence, std::uint32_t count) {
    const gm_header header{.version = GM_PROTOCOL_VERSION,
                           .kind = static_cast<std::uint16_t>(kind),
                           .sequence = sequence,
                           .count = count,
                           .flags = 0};
    frame_.reserve(sizeof header + sizeof(gm_done));
    add(header);
}

void put_text(std::span<char> field, std::string_view text) {
    const auto size = std::min(text.size(), field.size() - 1);
    std::ranges::copy(text.substr(0, size), field.begin());
    std::ranges::fill(field.subspan(size), '\0');
}

std::optional<std::string> text_of(std::span<const char> field) {
    const auto end = std::ranges::find(field, '\0');
    if (end == field.end()) return std::nullopt;
    return std::string(field.begin(), end);
}

gm_address to_frame(const Address& address) {
    gm_address out{};
    std::ranges::copy(address.bytes(), out.octets);
    out.family = address.is_v6() ? 6 : 4;
    return out;
}

std::optional<Address> value_of(const gm_address& address) {
    if (address.family == 6) {
        std::array<std::uint8_t, 16> bytes;
        std::ranges::copy(address.octets, bytes.begin());
        const auto value = Address::v6(bytes);
        if (!value.is_v6()) return std::nullopt;  // a mapped IPv4 address: two names for one thing
        return value;
    }
    if (address.family != 4 || !are_zero(std::span(address.octets).subspan(4))) return std::nullopt;
    std::array<std::uint8_t, 4> bytes;
    std::ranges::copy(std::span(address.octets).first(4), bytes.begin());
    return Address::v4(bytes);
}

gm_pair to_frame(AlgorithmPair pair) {
    return {.alg = static_cast<std::uint8_t>(pair.alg), .ealg = static_cast<std::uint8_t>(pair.ealg), .reserved = {}};
}

std::optional<AlgorithmPair> value_of(const gm_pair& pair) {
    if (pair.alg > static_cast<std::uint8_t>(Alg::null) || pair.ealg > static_cast<std::uint8_t>(Ealg::null) ||
        !are_zero(pair.reserved))
        return std::nullopt;
    const AlgorithmPair value{static_cast<Alg>(pair.alg), static_cast<Ealg>(pair.ealg)};
    if (!is_valid(value)) return std::nullopt;
    return value;
}

gm_set to_frame(const SetParameters& p) {
    return {.ue = to_frame(p.ue),
            .gateway = to_frame(p.gateway),
            .port_uc = p.port_uc.value,
            .port_us = p.port_us.value,
            .port_pc = p.port_pc.value,
            .port_ps = p.port_ps.value,
            .spi_uc = p.spi_uc.value,
            .spi_us = p.spi_us.value,
            .spi_pc = p.spi_pc.value,
            .spi_ps = p.spi_ps.value,
            .pair = to_frame(p.algorithms),
            .mode = static_cast<std::uint16_t>(p.mode),
            .reserved = 0,
            .inner = p.inner ? to_frame(*p.inner) : gm_address{}};
}
static_assert(static_cast<int>(Mode::udp_enc_tun) == GM_UDP_ENC_TUN);

std::optional<SetParameters> value_of(const gm_set& set) {
    const auto ue = value_of(set.ue), gateway = value_of(set.gateway);
    const auto pair = value_of(set.pair);
    if (!ue || !gateway || !pair || ue->family() != gateway->family() || set.mode > GM_UDP_ENC_TUN || set.reserved != 0)
        return std::nullopt;
    SetParameters p{.ue = *ue,
                    .gateway = *gateway,
                    .port_uc = Port{set.port_uc},
                    .port_us = Port{set.port_us},
                    .port_pc = Port{set.port_pc},
                    .port_ps = Port{set.port_ps},
                    .spi_uc = Spi{set.spi_uc},
                    .spi_us = Spi{set.spi_us},
                    .spi_pc = Spi{set.spi_pc},
                    .spi_ps = Spi{set.spi_ps},
                    .algorithms = *pair,
                    .mode = static_cast<Mode>(set.mode)};
    for (const auto port : {p.port_uc, p.port_us, p.port_pc, p.port_ps})
        if (port.value == 0) return std::nullopt;
    for (const auto spi : {p.spi_uc, p.spi_us, p.spi_pc, p.spi_ps})
        if (spi.value == 0) return std::nullopt;
    if (p.spi_uc == p.spi_us || p.spi_pc == p.spi_ps) return std::nullopt;
    if (set.inner.family == 0 && are_zero(set.inner.octets)) return p;
    p.inner = value_of(set.inner);
    if (!p.inner || p.mode != Mode::udp_enc_tun || p.inner->family() != p.ue.family()) return std::nullopt;
    return p;
}

gm_follow to_frame(const SetParameters& parameters, Port port_uenc) {
    return {.set = to_frame(parameters), .port_uenc = port_uenc.value, .reserved = 0};
}

gm_guards guards_frame_of(const GuardRequest& request) {
    const auto nat = request.nat.value_or(PortBlock{});
    return {.gateway = to_frame(request.gateway), .nat_first = nat.first.value, .nat_size = nat.size};
}

std::optional<GuardRequest> value_of(const gm_guards& guards) {
    const auto gateway = value_of(guards.gateway);
    if (!gateway) return std::nullopt;
    GuardRequest request{.gateway = *gateway, .ports = {}};
    if (guards.nat_first == 0 && guards.nat_size == 0) return request;
    request.nat = PortBlock{Port{guards.nat_first}, guards.nat_size};
    if (!request.nat->is_aligned()) return std::nullopt;
    return request;
}

gm_sa_id to_frame(const SaId& id) { return {.destination = to_frame(id.destination), .spi = id.spi.value}; }

std::optional<SaId> value_of(const gm_sa_id& id) {
    const auto destination = value_of(id.destination);
    if (!destination || id.spi == 0) return std::nullopt;
    return SaId{*destination, Spi{id.spi}};
}

gm_report to_frame(const SaReport& report) {
    gm_report out{};
    out.source = to_frame(report.sa.source.address);
    out.destination = to_frame(report.sa.destination.address);
    out.source_port = report.sa.source.port.value;
    out.destination_port = report.sa.destination.port.value;
    out.spi = report.sa.id.spi.value;
    out.mark = report.mark.value;
    out.pair = to_frame(report.algorithms);
    if (const auto& around = report.sa.encapsulation) {
        out.encap_source = around->source.value;
        out.encap_destination = around->destination.value;
        out.mode = GM_UDP_ENC_TUN;
        out.has_any_inner = report.sa.has_any_inner ? 1 : 0;
    }
    out.is_outbound = report.sa.direction == Direction::out ? 1 : 0;
    out.replay_window_drops = report.replay_window_drops;
    out.replay_drops = report.replay_drops;
    out.integrity_failures = report.integrity_failures;
    out.packets = report.packets;
    out.bytes = report.bytes;
    out.added = std::chrono::duration_cast<std::chrono::seconds>(report.added.time_since_epoch()).count();
    out.hard_lifetime = static_cast<std::uint64_t>(report.hard_lifetime.count());
    return out;
}

std::optional<SaReport> value_of(const gm_report& report) {
    const auto source = value_of(report.source), destination = value_of(report.destination);
    const auto pair = value_of(report.pair);
    if (!source || !destination || !pair || report.is_outbound > 1 || report.mode > GM_UDP_ENC_TUN) return std::nullopt;
    // What the clock and a duration can hold: more would overflow.
    constexpr auto kLatest =
        std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::duration::max()).count();
    if (report.added < -kLatest || report.added > kLatest ||
        report.hard_lifetime > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return std::nullopt;
    SaReport out;
    out.sa = {.id = {*destination, Spi{report.spi}},
              .direction = report.is_outbound == 1 ? Direction::out : Direction::in,
              .source = {*source, Port{report.source_port}},
              .destination = {*destination, Port{report.destination_port}}};
    if (report.has_any_inner > (report.mode == GM_UDP_ENC_TUN ? 1 : 0)) return std::nullopt;
    out.sa.has_any_inner = report.has_any_inner == 1;
    if (report.mode == GM_UDP_ENC_TUN)
        out.sa.encapsulation = Encapsulation{Port{report.encap_source}, Port{report.encap_destination}};
    else if (report.encap_source != 0 || report.encap_destination != 0) return std::nullopt;
    out.mark = Mark{report.mark};
    out.algorithms = *pair;
    out.packets = report.packets;
    out.bytes = report.bytes;
    out.replay_window_drops = report.replay_window_drops;
    out.replay_drops = report.replay_drops;
    out.integrity_failures = report.integrity_failures;
    out.added = std::chrono::system_clock::time_point(std::chrono::seconds(report.added));
    out.hard_lifetime = std::chrono::seconds(static_cast<std::int64_t>(report.hard_lifetime));
    return out;
}

gm_event to_frame(const KernelEvent& event) {
    gm_event out{};
    out.event = static_cast<std::uint32_t>(event.kind);
    out.destination = to_frame(event.sa.destination);
    out.spi = event.sa.spi.value;
    out.mark = event.mark.value;
    out.guard = to_frame(event.guard.gateway.address);
    out.guard_port = event.guard.gateway.port.value;
    out.guard_is_outbound = event.guard.direction == Direction::out ? 1 : 0;
    out.guard_nat_block = event.guard.nat_block;
    if (event.kind != KernelEvent::Kind::mapping_changed) return out;
    out.before = to_frame(event.before.address);
    out.before_port = event.before.port.value;
    out.now = to_frame(event.now.address);
    out.now_port = event.now.port.value;
    return out;
}

std::optional<KernelEvent> value_of(const gm_event& event) {
    const auto destination = value_of(event.destination), guard = value_of(event.guard);
    if (event.event > GM_MAPPING_CHANGED || !destination || !guard || event.guard_is_outbound > 1 ||
        event.reserved != 0)
        return std::nullopt;
    KernelEvent out;
    out.kind = static_cast<KernelEvent::Kind>(event.event);
    out.sa = {*destination, Spi{event.spi}};
    out.mark = Mark{event.mark};
    out.guard = {event.guard_is_outbound == 1 ? Direction::out : Direction::in,
                 {*guard, Port{event.guard_port}},
                 event.guard_nat_block};
    if (out.kind != KernelEvent::Kind::mapping_changed) return out;
    const auto before = value_of(event.before), now = value_of(event.now);
    if (!before || !now) return std::nullopt;
    out.before = {*before, Port{event.before_port}};
    out.now = {*now, Port{event.now_port}};
    return out;
}
static_assert(static_cast<int>(KernelEvent::Kind::mapping_changed) == GM_MAPPING_CHANGED);
static_assert(static_cast<int>(KernelEvent::Kind::events_lost) == GM_EVENTS_LOST &&
              static_cast<int>(KernelEvent::Kind::policy_deleted) == GM_POLICY_DELETED);

gm_guard to_frame(const GuardPolicy& guard) {
    return {.gateway = to_frame(guard.gateway.address),
            .port = guard.gateway.port.value,
            .is_outbound = static_cast<std::uint16_t>(guard.direction == Direction::out ? 1 : 0),
            .nat_block = guard.nat_block,
            .reserved = 0};
}

std::optional<GuardPolicy> value_of(const gm_guard& guard) {
    const auto gateway = value_of(guard.gateway);
    if (!gateway || guard.is_outbound > 1 || guard.reserved != 0) return std::nullopt;
    return GuardPolicy{
        guard.is_outbound == 1 ? Direction::out : Direction::in, {*gateway, Port{guard.port}}, guard.nat_block};
}

gm_finding to_frame(const ProbeFinding& finding) {
    gm_finding out{};
    out.is_present = finding.present ? 1 : 0;
    put_text(out.feature, finding.feature);
    put_text(out.reason, finding.reason);
    put_text(out.module, finding.module);
    return out;
}

std::optional<ProbeFinding> value_of(const gm_finding& finding) {
    const auto feature = text_of(finding.feature), reason = text_of(finding.reason), module = text_of(finding.module);
    if (!feature || !reason || !module || finding.is_present > 1) return std::nullopt;
    return ProbeFinding{.feature = *feature, .present = finding.is_present == 1, .reason = *reason, .module = *module};
}

gm_done to_frame(const Result<void>& result, const EngineCounters& c) {
    gm_done out{};
    if (!result) {
        out.outcome = 1 + static_cast<std::uint32_t>(result.error().reaction);
        out.code = result.error().code;
        put_text(out.text, result.error().text);
    }
    out.counters = {.requests = c.kernel.requests,
                    .system_calls = c.kernel.system_calls,
                    .sets_installed = c.kernel.sets_installed,
                    .sets_refused = c.kernel.sets_refused,
                    .sets_removed = c.kernel.sets_removed,
                    .rollbacks = c.kernel.rollbacks,
                    .malformed = c.malformed,
                    .forbidden = c.forbidden,
                    .flooded = c.flooded,
                    .events = c.events,
                    .events_lost = c.events_lost};
    return out;
}
static_assert(1 + static_cast<int>(Reaction::retry) == GM_RETRY &&
              1 + static_cast<int>(Reaction::refused) == GM_REFUSED &&
              1 + static_cast<int>(Reaction::internal) == GM_INTERNAL);

std::optional<Result<void>> value_of(const gm_done& done) {
    const auto text = text_of(done.text);
    if (!text || done.outcome > GM_INTERNAL) return std::nullopt;
    if (done.outcome == GM_OK) return Result<void>{};
    return std::unexpected(Error{static_cast<Reaction>(done.outcome - 1), done.code, *text});
}

EngineCounters value_of(const gm_counters& c) {
    EngineCounters out;
    out.kernel = {.requests = c.requests,
                  .system_calls = c.system_calls,
                  .sets_installed = c.sets_installed,
                  .sets_refused = c.sets_refused,
                  .sets_removed = c.sets_removed,
                  .rollbacks = c.rollbacks};
    out.malformed = c.malformed;
    out.forbidden = c.forbidden;
    out.flooded = c.flooded;
    out.events = c.events;
    out.events_lost = c.events_lost;
    return out;
}

gm_install to_frame(const SetRequest& request, ReqId reqid) {
    gm_install out{};
    out.set = to_frame(request.parameters);
    out.reqid = reqid.value;
    out.mark = request.mark.value;
    out.lifetime =
        static_cast<std::uint32_t>(std::clamp<std::chrono::seconds::rep>(request.lifetime.count(), 0, 0xffffffff));
    if (request.parameters.mode == Mode::udp_enc_tun) out.port_uenc = request.port_uenc.value;
    put_key(out.integrity, out.integrity_size, request.keys.integrity.expose());
    put_key(out.confidentiality, out.confidentiality_size, request.keys.confidentiality.expose());
    put_key(out.combined, out.combined_size, request.keys.combined.expose());
    return out;
}

std::optional<InstallOrder> take_value_of(gm_install& install) {
    InstallOrder order{};
    auto& keys = order.request.keys;
    const bool has_keys =
        take_key(keys.integrity, std::span(install.integrity), install.integrity_size) &&
        take_key(keys.confidentiality, std::span(install.confidentiality), install.confidentiality_size) &&
        take_key(keys.combined, std::span(install.combined), install.combined_size);
    wipe(install.integrity);
    wipe(install.confidentiality);
    wipe(install.combined);
    const auto parameters = value_of(install.set);
    if (!has_keys || !parameters || install.reserved != 0 || install.reserved_too != 0 || install.lifetime == 0 ||
        (install.port_uenc != 0) != (parameters->mode == Mode::udp_enc_tun) || !fits(parameters->algorithms, keys))
        return std::nullopt;
    if (install.port_uenc != 0) order.request.port_uenc = Port{install.port_uenc};
    order.request.parameters = *parameters;
    order.request.mark = Mark{install.mark};
    order.request.lifetime = std::chrono::seconds(install.lifetime);
    order.reqid = ReqId{install.reqid};
    return order;
}

std::vector<Frame> configuration_frames(const EngineConfiguration& c) {
    std::vector<Frame> frames;
    const gm_configuration fixed{.reqid = c.owner.reqid.value,
                                 .mark_mask = c.owner.mark_mask,
                                 .spi_first = c.spi_first.value,
                                 .spi_last = c.spi_last.value,
                                 .sa_limit = c.sa_limit,
                                 .reserved = 0};
    std::size_t start = 0;
    do {
        const auto count = std::min(c.ports.size() - start, kPortsPerFrame);
        FrameWriter writer(GM_CONFIGURE, 0, static_cast<std::uint32_t>(count));
        writer.add(fixed);
        for (const auto& range : std::span(c.ports).subspan(start, count))
            writer.add(gm_ports{.gateway = to_frame(range.gateway),
                                .first = range.first.value,
                                .last = range.last.value,
                                .mode = static_cast<std::uint16_t>(range.mode),
                                .reserved = 0});
        start += count;
        if (start < c.ports.size()) writer.set_flags(GM_MORE);
        frames.push_back(writer.finish());
    } while (start < c.ports.size());
    return frames;
}

Result<bool> add_configuration(EngineConfiguration& configuration, std::span<const std::uint8_t> frame, bool is_first) {
    const auto bad = [](const char* why) {
        return failure(Reaction::reject, std::string("the engine's configuration is malformed: ") + why, EBADMSG);
    };
    FrameReader reader(frame);
    if (reader.header().version != GM_PROTOCOL_VERSION)
        return bad("another version of the protocol: gmgated and its engine are not of one release");
    if (reader.header().kind != GM_CONFIGURE || (reader.header().flags & ~std::uint32_t{GM_MORE}) != 0)
        return bad("not a configuration");
    const auto fixed = reader.take<gm_configuration>();
    if (!reader.is_list_of(sizeof(gm_ports))) return bad("its length");
    if (fixed.reserved != 0 || fixed.reqid == 0 || fixed.mark_mask == 0 || fixed.spi_first < 256 ||
        fixed.spi_last < fixed.spi_first)
        return bad("a number is out of range");
    EngineConfiguration told{.owner = {.reqid = ReqId{fixed.reqid}, .mark_mask = fixed.mark_mask},
                             .spi_first = Spi{fixed.spi_first},
                             .spi_last = Spi{fixed.spi_last},
                             .sa_limit = fixed.sa_limit,
                             .ports = {}};
    if (!is_first) {
        told.ports = configuration.ports;
        if (told != configuration) return bad("its parts differ");
    }
    if (told.ports.size() + reader.header().count > kRangesLimit) return bad("too many ports");
    for (std::uint32_t i = 0; i < reader.header().count; ++i) {
        const auto ports = reader.take<gm_ports>();
        const auto gateway = value_of(ports.gateway);
        if (!gateway || gateway->is_any() || ports.first == 0 || ports.last < ports.first ||
            ports.mode > GM_UDP_ENC_TUN || ports.reserved != 0)
            return bad("an address or port");
        told.ports.push_back({*gateway, Port{ports.first}, Port{ports.last}, static_cast<Mode>(ports.mode)});
        if (const auto block = told.ports.back().nat_block(); block && !block->is_aligned())
            return bad("a block of ports for phones behind NAT");
    }
    configuration = std::move(told);
    return (reader.header().flags & GM_MORE) == 0;
}

}  // namespace gmgate::xfrm
