// Distinct types for the numbers of the field, in host byte order. Only codecs convert them.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace gmgate {

/// A number that means one thing. Two tags never mix; there is no implicit conversion in either direction.
template <class Rep, class Tag>
struct Distinct {
    Rep value{};

    constexpr Distinct() = default;
    constexpr explicit Distinct(Rep v) : value(v) {}
    friend constexpr auto operator<=>(const Distinct&, const Distinct&) = default;
};

/// Security Parameter Index of an ESP SA (RFC 4303 §2.1): 0 is invalid, 1..255 reserved by IANA.
using Spi = Distinct<std::uint32_t, struct SpiTag>;
/// Transport port, 0 = not set.
using Port = Distinct<std::uint16_t, struct PortTag>;
/// XFRM request id: ties a policy's template to SAs; gmgate marks all of its SAs and policies with one.
using ReqId = Distinct<std::uint32_t, struct ReqIdTag>;
/// Packet mark that an inbound SA sets (XFRMA_SET_MARK) and a socket reports (SO_RCVMARK).
using Mark = Distinct<std::uint32_t, struct MarkTag>;

/// Number of a set of SAs for the life of the process; it is also the mark that its inbound SAs set (never 0).
using SetNumber = Distinct<std::uint32_t, struct SetNumberTag>;

/// A piece of text that means one thing (an identity, say).
template <class Tag>
struct DistinctText {
    std::string value;

    DistinctText() = default;
    explicit DistinctText(std::string v) : value(std::move(v)) {}
    bool empty() const { return value.empty(); }
    friend auto operator<=>(const DistinctText&, const DistinctText&) = default;
};

/// IP Multimedia Private Identity (TS 23.003 §13.3), as in the Digest username; compared case-sensitively (G-8).
using Impi = DistinctText<struct ImpiTag>;
/// IP Multimedia Public Identity: a SIP or tel URI (TS 23.003 §13.4).
using Impu = DistinctText<struct ImpuTag>;

}  // namespace gmgate

template <class Rep, class Tag>
struct std::hash<gmgate::Distinct<Rep, Tag>> {
    std::size_t operator()(const gmgate::Distinct<Rep, Tag>& d) const noexcept { return std::hash<Rep>{}(d.value); }
};
template <class Tag>
struct std::hash<gmgate::DistinctText<Tag>> {
    std::size_t operator()(const gmgate::DistinctText<Tag>& t) const noexcept {
        return std::hash<std::string>{}(t.value);
    }
};
