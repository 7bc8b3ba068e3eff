// Diameter messages as values: header, AVPs, octets both ways (RFC 6733 §3 and §4).
#pragma once

#include "../common/bytes.h"
#include "../common/error.h"

#include <string>
#include <string_view>
#include <vector>

namespace gmgate::peers::diameter {

/// Code and vendor, which name an AVP together; vendor 0 is the IETF.
struct AvpName {
    std::uint32_t code = 0;
    std::uint32_t vendor = 0;
    auto operator<=>(const AvpName&) const = default;
};

struct Avp {
    AvpName name;
    bool is_mandatory = true;
    Bytes data;
};

/// AVPs in their order, as a message or a grouped AVP holds them.
class AvpList {
public:
    /// Not a list when an AVP is shorter than its header or longer than what is left.
    [[nodiscard]] static Result<AvpList> decode(ByteView octets);
    [[nodiscard]] Bytes encode() const;

    void add(Avp avp) { avps_.push_back(std::move(avp)); }
    void add(AvpName name, ByteView data) { avps_.push_back({name, true, Bytes(data.begin(), data.end())}); }
    void add(AvpName name, std::string_view text) { add(name, as_bytes(text)); }
    void add_number(AvpName name, std::uint32_t value);
    void append(const AvpList& more) { avps_.insert(avps_.end(), more.avps_.begin(), more.avps_.end()); }
    void add_group(AvpName name, const AvpList& group) { add(name, group.encode()); }

    /// The first of that name, or nullptr.
    [[nodiscard]] const Avp* find(AvpName name) const;
    [[nodiscard]] std::vector<const Avp*> all(AvpName name) const;
    /// Empty when there is none of that name.
    [[nodiscard]] std::string text(AvpName name) const;
    /// Nothing when there is none of that name, or when it has not four octets.
    [[nodiscard]] std::optional<std::uint32_t> number(AvpName name) const;
    /// An empty list when there is none of that name.
    [[nodiscard]] Result<AvpList> group(AvpName name) const;

private:
    std::vector<Avp> avps_;
};

struct Message {
    bool is_request = false;
    bool is_proxiable = false;
    bool is_error = false;  ///< the E bit of an answer: a protocol error, result codes 3xxx
    std::uint32_t command = 0;
    std::uint32_t application = 0;
    std::uint32_t hop_by_hop = 0;
    std::uint32_t end_to_end = 0;
    AvpList avps;

    /// One whole message; not one when version, length or an AVP is wrong.
    [[nodiscard]] static Result<Message> decode(ByteView octets);
    [[nodiscard]] Bytes encode() const;
    /// An answer to this request: identifiers, Session-Id and Proxy-Info are repeated (RFC 6733 §6.2).
    [[nodiscard]] Message answer() const;
};

/// Cuts a byte stream into messages.
class MessageFramer {
public:
    /// Nobody sends as much over Cx; whoever announces more is not in step with us.
    static constexpr std::size_t kMaxMessage = 65536;

    void feed(ByteView octets) { buffer_.insert(buffer_.end(), octets.begin(), octets.end()); }
    /// A message, nothing when more octets are needed, an error when the stream cannot be followed any more.
    [[nodiscard]] Result<std::optional<Message>> next();

private:
    Bytes buffer_;
};

}  // namespace gmgate::peers::diameter
