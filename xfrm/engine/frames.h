// Values to frames of the SA engine's protocol and back (engine_protocol.h). Pure; what is read is hostile: nothing is
// taken for granted.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "xfrm/engine/protocol.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::xfrm {

/// A frame under construction or to be sent: header and body.
using Frame = std::vector<std::uint8_t>;

/// Protected ports first..last of an access address; those of mode udp_enc_tun are a PortBlock.
struct PortRange {
    Address gateway;
    Port first, last;
    Mode mode = Mode::transport;
    std::optional<PortBlock> nat_block() const {
        if (mode != Mode::udp_enc_tun) return std::nullopt;
        return PortBlock{first, static_cast<std::uint16_t>(last.value - first.value + 1)};
    }
    friend bool operator==(const PortRange&, const PortRange&) = default;
};

/// Everything that a request to an engine may name (gm_configuration).
struct EngineConfiguration {
    Ownership owner;
    Spi spi_first{0x10000000}, spi_last{0xbfffffff};
    std::uint32_t sa_limit = 0;  ///< SAs of ours that may exist, 0: no limit
    std::vector<PortRange> ports;
    friend bool operator==(const EngineConfiguration& a, const EngineConfiguration& b) {
        return a.owner.reqid == b.owner.reqid && a.owner.mark_mask == b.owner.mark_mask && a.spi_first == b.spi_first &&
               a.spi_last == b.spi_last && a.sa_limit == b.sa_limit && a.ports == b.ports;
    }
};

/// How many times an engine refused a request by itself, and what it sent unasked.
struct EngineCounters {
    KernelCounters kernel;
    std::uint64_t malformed = 0, forbidden = 0, flooded = 0, events = 0, events_lost = 0;
};

/// Builds one frame. `count` and `flags` of the header may be set later. What fits a gm_done grows without a copy: an
/// install's keys, too.
class FrameWriter {
public:
    explicit FrameWriter(gm_kind kind, std::uint32_t sequence = 0, std::uint32_t count = 0);
    template <class Fixed>
    FrameWriter& add(const Fixed& fixed) {
        static_assert(std::is_trivially_copyable_v<Fixed>);
        const auto at = frame_.size();
        frame_.resize(at + sizeof fixed);
        std::memcpy(frame_.data() + at, &fixed, sizeof fixed);
        return *this;
    }
    void set_count(std::uint32_t count) { header().count = count; }
    void set_flags(std::uint32_t flags) { header().flags = flags; }
    std::size_t size() const { return frame_.size(); }
    Frame finish() { return std::move(frame_); }

private:
    gm_header& header() { return *reinterpret_cast<gm_header*>(frame_.data()); }
    Frame frame_;
};

/// Takes a frame apart. A read beyond its end leaves the reader failed and gives zeros.
class FrameReader {
public:
    explicit FrameReader(std::span<const std::uint8_t> frame) : rest_(frame) { header_ = take<gm_header>(); }
    const gm_header& header() const { return header_; }
    template <class Fixed>
    Fixed take() {
        static_assert(std::is_trivially_copyable_v<Fixed>);
        Fixed fixed{};
        if (rest_.size() < sizeof fixed) {
            failed_ = true;
            rest_ = {};
            return fixed;
        }
        std::memcpy(&fixed, rest_.data(), sizeof fixed);
        rest_ = rest_.subspan(sizeof fixed);
        return fixed;
    }
    /// Enough and not more: everything was read, and was there.
    bool is_complete() const { return !failed_ && rest_.empty(); }
    /// Whether `count` more of this size, and nothing else, are left.
    bool is_list_of(std::size_t size) const { return !failed_ && rest_.size() == std::uint64_t{header_.count} * size; }

private:
    std::span<const std::uint8_t> rest_;
    gm_header header_{};
    bool failed_ = false;
};

// --- values. Each reader gives nullopt for what breaks the protocol's rules (unknown word, reserved octets, wrong key
// length).

gm_address to_frame(const Address& address);
std::optional<Address> value_of(const gm_address& address);
gm_set to_frame(const SetParameters& parameters);
std::optional<SetParameters> value_of(const gm_set& set);
gm_report to_frame(const SaReport& report);
std::optional<SaReport> value_of(const gm_report& report);
gm_pair to_frame(AlgorithmPair pair);
std::optional<AlgorithmPair> value_of(const gm_pair& pair);
gm_follow to_frame(const SetParameters& parameters, Port port_uenc);
gm_guards guards_frame_of(const GuardRequest& request);
/// Without its ports, which follow.
std::optional<GuardRequest> value_of(const gm_guards& guards);
gm_sa_id to_frame(const SaId& id);
std::optional<SaId> value_of(const gm_sa_id& id);
gm_event to_frame(const KernelEvent& event);
std::optional<KernelEvent> value_of(const gm_event& event);
gm_guard to_frame(const GuardPolicy& guard);
std::optional<GuardPolicy> value_of(const gm_guard& guard);
gm_finding to_frame(const ProbeFinding& finding);
std::optional<ProbeFinding> value_of(const gm_finding& finding);
/// The answer of a call, with the counters of the moment.
gm_done to_frame(const Result<void>& result, const EngineCounters& counters);
std::optional<Result<void>> value_of(const gm_done& done);
EngineCounters value_of(const gm_counters& counters);

/// What GM_INSTALL_SET says. The keys are wiped from `install`, whatever comes of it.
struct InstallOrder {
    SetRequest request;
    ReqId reqid;
};
gm_install to_frame(const SetRequest& request, ReqId reqid);
std::optional<InstallOrder> take_value_of(gm_install& install);

/// One GM_CONFIGURE for each part of at most GM_FRAME_LIMIT octets.
std::vector<Frame> configuration_frames(const EngineConfiguration& configuration);
/// Puts the next GM_CONFIGURE to what there is. True when it was the last one; an Error (Reaction::reject) for one that
/// does not belong.
Result<bool> add_configuration(EngineConfiguration& configuration, std::span<const std::uint8_t> frame, bool is_first);

/// Text of a fixed field, which must end with 0.
std::optional<std::string> text_of(std::span<const char> field);
/// Cut to the field, always with a 0 at the end.
void put_text(std::span<char> field, std::string_view text);

}  // namespace gmgate::xfrm
