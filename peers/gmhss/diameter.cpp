#include "diameter.h"

#include "dictionary.h"

namespace gmgate::peers::diameter {
namespace {

constexpr std::size_t kHeader = 20;
constexpr std::uint8_t kVersion = 1;
// Flags of the header (RFC 6733 §3) and of an AVP (§4.1)
constexpr std::uint8_t kRequest = 0x80, kProxiable = 0x40, kError = 0x20;
constexpr std::uint8_t kVendorSpecific = 0x80, kMandatory = 0x40;

std::uint32_t read_number(ByteView octets, std::size_t at, std::size_t size) {
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < size; ++i) out = out << 8 | octets[at + i];
    return out;
}

void write_number(Bytes& out, std::uint32_t value, std::size_t size) {
    for (std::size_t i = size; i-- > 0;) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::size_t padded(std::size_t size) { return (size + 3) & ~std::size_t{3}; }

}  // namespace

Result<AvpList> AvpList::decode(ByteView octets) {
    AvpList out;
    while (!octets.empty()) {
        if (octets.size() < 8) return fail("{} octets are left after the last AVP", octets.size());
        Avp avp;
        avp.name.code = read_number(octets, 0, 4);
        const std::uint8_t flags = octets[4];
        const std::size_t size = read_number(octets, 5, 3);
        const std::size_t header = (flags & kVendorSpecific) != 0 ? 12 : 8;
        if (size < header || size > octets.size())
            return fail("AVP {} says {} octets, between {} and {} are possible", avp.name.code, size, header,
                        octets.size());
        if (header == 12) avp.name.vendor = read_number(octets, 8, 4);
        avp.is_mandatory = (flags & kMandatory) != 0;
        avp.data.assign(octets.begin() + static_cast<std::ptrdiff_t>(header),
                        octets.begin() + static_cast<std::ptrdiff_t>(size));
        out.avps_.push_back(std::move(avp));
        octets = octets.subspan(std::min(padded(size), octets.size()));
    }
    return out;
}

Bytes AvpList::encode() const {
    Bytes out;
    for (const Avp& avp : avps_) {
        const bool has_vendor = avp.name.vendor != 0;
        write_number(out, avp.name.code, 4);
        out.push_back(
            static_cast<std::uint8_t>((has_vendor ? kVendorSpecific : 0) | (avp.is_mandatory ? kMandatory : 0)));
        write_number(out, static_cast<std::uint32_t>((has_vendor ? 12 : 8) + avp.data.size()), 3);
        if (has_vendor) write_number(out, avp.name.vendor, 4);
        out.insert(out.end(), avp.data.begin(), avp.data.end());
        out.resize(padded(out.size()));
    }
    return out;
}

void AvpList::add_number(AvpName name, std::uint32_t value) {
    Bytes data;
    write_number(data, value, 4);
    avps_.push_back({name, true, std::move(data)});
}

const Avp* AvpList::find(AvpName name) const {
    const auto it = std::ranges::find(avps_, name, &Avp::name);
    return it == avps_.end() ? nullptr : &*it;
}

std::vector<const Avp*> AvpList::all(AvpName name) const {
    std::vector<const Avp*> out;
    for (const Avp& avp : avps_)
        if (avp.name == name) out.push_back(&avp);
    return out;
}

std::string AvpList::text(AvpName name) const {
    const Avp* avp = find(name);
    return avp ? std::string(avp->data.begin(), avp->data.end()) : std::string();
}

std::optional<std::uint32_t> AvpList::number(AvpName name) const {
    const Avp* avp = find(name);
    if (!avp || avp->data.size() != 4) return std::nullopt;
    return read_number(avp->data, 0, 4);
}

Result<AvpList> AvpList::group(AvpName name) const {
    const Avp* avp = find(name);
    return avp ? decode(avp->data) : AvpList();
}

Result<Message> Message::decode(ByteView octets) {
    if (octets.size() < kHeader) return fail("{} octets are less than a header", octets.size());
    if (octets[0] != kVersion) return fail("version {} is not 1", octets[0]);
    const std::size_t size = read_number(octets, 1, 3);
    if (size != octets.size()) return fail("the header says {} octets, there are {}", size, octets.size());
    Message out;
    out.is_request = (octets[4] & kRequest) != 0;
    out.is_proxiable = (octets[4] & kProxiable) != 0;
    out.is_error = (octets[4] & kError) != 0;
    out.command = read_number(octets, 5, 3);
    out.application = read_number(octets, 8, 4);
    out.hop_by_hop = read_number(octets, 12, 4);
    out.end_to_end = read_number(octets, 16, 4);
    auto avps = AvpList::decode(octets.subspan(kHeader));
    if (!avps) return std::unexpected(avps.error());
    out.avps = std::move(*avps);
    return out;
}

Bytes Message::encode() const {
    const Bytes body = avps.encode();
    Bytes out;
    out.reserve(kHeader + body.size());
    out.push_back(kVersion);
    write_number(out, static_cast<std::uint32_t>(kHeader + body.size()), 3);
    out.push_back(static_cast<std::uint8_t>((is_request ? kRequest : 0) | (is_proxiable ? kProxiable : 0) |
                                            (is_error ? kError : 0)));
    write_number(out, command, 3);
    write_number(out, application, 4);
    write_number(out, hop_by_hop, 4);
    write_number(out, end_to_end, 4);
    out.insert(out.end(), body.begin(), body.end());
    return out;
}

Message Message::answer() const {
    Message out;
    out.is_proxiable = is_proxiable;
    out.command = command;
    out.application = application;
    out.hop_by_hop = hop_by_hop;
    out.end_to_end = end_to_end;
    if (const Avp* session = avps.find(avp::kSessionId)) out.avps.add(*session);
    for (const Avp* info : avps.all(avp::kProxyInfo)) out.avps.add(*info);
    return out;
}

Result<std::optional<Message>> MessageFramer::next() {
    if (buffer_.size() < 4) return std::nullopt;
    if (buffer_[0] != kVersion) return fail("version {} is not 1", buffer_[0]);
    const std::size_t size = read_number(buffer_, 1, 3);
    if (size < kHeader || size > kMaxMessage)
        return fail("a message of {} octets, between {} and {} are possible", size, kHeader, kMaxMessage);
    if (buffer_.size() < size) return std::nullopt;
    auto message = Message::decode(ByteView(buffer_).first(size));
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(size));
    if (!message) return std::unexpected(message.error());
    return std::move(*message);
}

}  // namespace gmgate::peers::diameter
