#include "sip/message/message.h"

#include <algorithm>

#include "base/secret.h"
#include "sip/message/headers.h"
#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

constexpr std::array<std::string_view, 15> kMethods{"INVITE",  "ACK",     "BYE",    "CANCEL",  "REGISTER",
                                                    "OPTIONS", "PRACK",   "UPDATE", "INFO",    "SUBSCRIBE",
                                                    "NOTIFY",  "MESSAGE", "REFER",  "PUBLISH", ""};

/// RFC 3261 §7.1: method names are case-sensitive.
Method method_of(std::string_view name) {
    for (std::size_t i = 0; i + 1 < kMethods.size(); ++i)
        if (kMethods[i] == name) return static_cast<Method>(i);
    return Method::other;
}

constexpr std::uint64_t bit(HeaderId id) { return std::uint64_t{1} << static_cast<unsigned>(id); }

/// RFC 3261 §8.1.1, RFC 4475 §3.3.1: what every message has.
constexpr std::uint64_t kRequired =
    bit(HeaderId::via) | bit(HeaderId::from) | bit(HeaderId::to) | bit(HeaderId::call_id) | bit(HeaderId::cseq);
/// RFC 4475 §3.3.8, §3.3.9: what nobody may have twice.
constexpr std::uint64_t kSingle = bit(HeaderId::from) | bit(HeaderId::to) | bit(HeaderId::call_id) |
                                  bit(HeaderId::cseq) | bit(HeaderId::content_length) | bit(HeaderId::max_forwards);
/// Whose value must not be empty.
constexpr std::uint64_t kNotEmpty = kRequired | bit(HeaderId::content_length);

constexpr std::uint32_t kMaxCSeq = 0x7fffffff;  // RFC 3261 §8.1.1.5: less than 2^31

bool is_absolute_uri(std::string_view uri) {
    if (uri.empty() || !scan::is(uri.front(), scan::kAlpha)) return false;
    for (std::size_t i = 1; i < uri.size(); ++i) {
        const char c = uri[i];
        if (c == ':') return i + 1 < uri.size();
        if (!scan::is(c, scan::kAlpha | scan::kDigit) && c != '+' && c != '-' && c != '.') return false;
    }
    return false;
}

const char* missing(std::uint64_t seen) {
    if ((seen & bit(HeaderId::via)) == 0) return "Via is missing";
    if ((seen & bit(HeaderId::from)) == 0) return "From is missing";
    if ((seen & bit(HeaderId::to)) == 0) return "To is missing";
    if ((seen & bit(HeaderId::call_id)) == 0) return "Call-ID is missing";
    return "CSeq is missing";
}

}  // namespace

std::string_view to_string(Method method) { return kMethods[static_cast<std::size_t>(method)]; }

/// One parse: walks the bytes once and fills the message. Each step returns false after it has set `error`.
class Message::Reader {
public:
    Reader(Message& message, std::string_view bytes)
        : m_(message), begin_(bytes.data()), end_(bytes.data() + bytes.size()) {}
    bool run() { return start_line() && fields() && required() && cseq() && body(); }
    ParseError error;

private:
    bool fail(std::string_view reason, const char* at) {
        error.reason = reason;
        error.offset = static_cast<std::size_t>(at - begin_);
        return false;
    }
    std::uint32_t offset(const char* at) const { return static_cast<std::uint32_t>(at - begin_); }
    bool start_line();
    bool request_line(std::string_view line);
    bool status_line(std::string_view line);
    bool version(std::string_view word);
    bool fields();
    bool keep(const scan::FieldSpan& field);
    bool required();
    bool cseq();
    bool body();

    Message& m_;
    const char* const begin_;
    const char* const end_;
    const char* at_ = nullptr;
};

bool Message::Reader::start_line() {
    const scan::Line line = scan::read_line(begin_, end_);
    if (line.next == nullptr)
        return fail(line.reason != nullptr ? line.reason : "start line does not end", line.text_end);
    const std::string_view text(begin_, line.text_end);
    m_.start_line_length_ = static_cast<std::uint32_t>(text.size());
    m_.fields_begin_ = offset(line.next);
    at_ = line.next;
    for (const char& c : text)
        if (scan::is(c, scan::kControl)) return fail("control character in the start line", &c);
    const bool is_status = text.size() >= 4 && text[3] == '/' && same_token(text.substr(0, 4), "SIP/");
    return is_status ? status_line(text) : request_line(text);
}

bool Message::Reader::version(std::string_view word) {
    if (same_token(word, "SIP/2.0")) return true;
    const std::size_t dot = word.find('.');
    const bool is_other = dot != std::string_view::npos && dot > 4 && dot + 1 < word.size() &&
                          same_token(word.substr(0, 4), "SIP/") && scan::all(word.substr(4, dot - 4), scan::kDigit) &&
                          scan::all(word.substr(dot + 1), scan::kDigit);
    return fail(is_other ? scan::kVersionNotSupported : "bad SIP version in the start line", word.data());
}

// Request-Line = Method SP Request-URI SP SIP-Version; exactly one SP each (RFC 4475 §3.1.2.7 … §3.1.2.9).
bool Message::Reader::request_line(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return fail("start line has no spaces", begin_);
    const std::string_view method = line.substr(0, space);
    if (!scan::is_token(method)) return fail("bad method in the start line", begin_);
    const std::string_view rest = line.substr(space + 1);
    const std::size_t last = rest.find(' ');
    if (last == std::string_view::npos) return fail("start line has no SIP version", begin_ + space);
    const std::string_view uri = rest.substr(0, last), word = rest.substr(last + 1);
    if (uri.empty() || scan::any(word, scan::kSpace)) return fail("white space in the start line", uri.data());
    if (!version(word)) return false;
    if (!is_absolute_uri(uri) || scan::any(uri, scan::kNoUri)) return fail("bad Request-URI", uri.data());
    m_.method_ = method_of(method);
    m_.target_ = static_cast<std::uint32_t>(space + 1);
    m_.target_length_ = static_cast<std::uint32_t>(uri.size());
    return true;
}

// Status-Line = SIP-Version SP 3DIGIT SP Reason-Phrase; the second SP may be missing when the phrase is empty (seen in
// the field).
bool Message::Reader::status_line(std::string_view line) {
    const std::size_t space = std::min(line.find(' '), line.size());
    if (!version(line.substr(0, space))) return false;
    const std::string_view rest = line.substr(std::min(space + 1, line.size()));
    if (rest.size() < 3 || !scan::all(rest.substr(0, 3), scan::kDigit) || (rest.size() > 3 && rest[3] != ' '))
        return fail("bad status code", begin_ + space);
    const int status = (rest[0] - '0') * 100 + (rest[1] - '0') * 10 + (rest[2] - '0');
    if (status < 100 || status > 699) return fail("status code out of range", rest.data());
    m_.status_ = static_cast<std::uint16_t>(status);
    m_.target_ = static_cast<std::uint32_t>(std::min(space + 5, line.size()));
    m_.target_length_ = static_cast<std::uint32_t>(line.size()) - m_.target_;
    return true;
}

bool Message::Reader::fields() {
    scan::FieldSpan field;
    while (true) {
        if (at_ == end_) return fail("header section does not end", at_);
        if (const std::size_t length = scan::empty_line(at_, end_)) {
            m_.fields_end_ = offset(at_);
            m_.body_ = m_.fields_end_ + static_cast<std::uint32_t>(length);
            return true;
        }
        if (const char* reason = scan::read_field(at_, end_, field)) return fail(reason, field.end);
        if (!keep(field)) return false;
        at_ = field.end;
    }
}

bool Message::Reader::keep(const scan::FieldSpan& field) {
    if (m_.count_ == kMaxHeaderFields) return fail("too many header fields", field.begin);
    const std::uint64_t mine = bit(field.id);
    if ((mine & m_.seen_ & kSingle) != 0) return fail("a header field that must be single occurs twice", field.begin);
    if ((mine & kNotEmpty) != 0 && field.value == field.value_end)
        return fail("a mandatory header field is empty", field.begin);
    m_.seen_ |= mine;
    Slot& slot = m_.slots_[m_.count_++];
    slot.begin = offset(field.begin);
    slot.value = offset(field.value);
    slot.value_length = static_cast<std::uint16_t>(field.value_end - field.value);
    slot.name_length = static_cast<std::uint16_t>(field.name_end - field.begin);
    slot.end = offset(field.end) & 0xffffffU;
    slot.id = static_cast<std::uint8_t>(field.id);
    return true;
}

bool Message::Reader::required() { return (m_.seen_ & kRequired) == kRequired || fail(missing(m_.seen_), at_); }

// CSeq = 1*DIGIT LWS Method
bool Message::Reader::cseq() {
    const std::string_view value = m_.value(HeaderId::cseq);
    std::size_t digits = 0;
    while (digits < value.size() && scan::is(value[digits], scan::kDigit)) ++digits;
    const auto number = parse_u32(value.substr(0, digits));
    if (!number || *number > kMaxCSeq) return fail("bad CSeq number", value.data());
    const std::string_view method = trim(value.substr(digits));
    if (!scan::is_token(method) || method.data() == value.data() + digits)
        return fail("bad method in CSeq", value.data());
    if (m_.status_ == 0 && method != m_.method_name())
        return fail(m_.method() == Method::other ? scan::kUnknownMethodDiffers : "CSeq method differs from the request",
                    value.data());
    m_.cseq_ = *number;
    if (m_.status_ != 0) m_.method_ = method_of(method);
    return true;
}

bool Message::Reader::body() {
    if (!m_.has(HeaderId::content_length)) return true;  // RFC 3261 §18.3: to the end of the datagram
    const std::string_view value = m_.value(HeaderId::content_length);
    const auto length = parse_u32(value);
    if (!length) return fail("bad Content-Length", value.data());
    if (*length > m_.bytes_.size() - m_.body_) return fail("Content-Length is larger than the message", value.data());
    m_.bytes_ = m_.bytes_.substr(0, m_.body_ + *length);
    return true;
}

std::expected<Message, ParseError> Message::parse(std::string_view bytes) {
    std::expected<Message, ParseError> result(std::in_place, Key{});
    // RFC 3261 §7.5: line ends before the start line are skipped; they are no part of the message.
    std::size_t skipped = 0;
    while (skipped < bytes.size() && (bytes[skipped] == '\r' || bytes[skipped] == '\n')) ++skipped;
    result->bytes_ = bytes.substr(skipped);
    ParseError error;
    if (result->bytes_.empty()) {
        error.reason = "empty message";
    } else if (result->bytes_.size() > kMaxMessage) {
        error.reason = scan::kTooLarge;
    } else {
        Reader reader(*result, result->bytes_);
        if (reader.run()) return result;
        error = reader.error;
    }
    error.offset += skipped;
    error.answerable = scan::is_answerable(bytes);
    result = std::unexpected(error);
    return result;
}

Message& Message::operator=(const Message& other) noexcept {
    bytes_ = other.bytes_;
    std::copy_n(other.slots_.begin(), other.count_, slots_.begin());
    count_ = other.count_;
    seen_ = other.seen_;
    start_line_length_ = other.start_line_length_;
    fields_begin_ = other.fields_begin_;
    fields_end_ = other.fields_end_;
    body_ = other.body_;
    target_ = other.target_;
    target_length_ = other.target_length_;
    cseq_ = other.cseq_;
    status_ = other.status_;
    method_ = other.method_;
    return *this;
}

std::string_view Message::method_name() const {
    if (is_request()) return bytes_.substr(0, target_ - 1);
    const std::string_view value = this->value(HeaderId::cseq);
    return trim(value.substr(std::min(value.find_first_not_of("0123456789"), value.size())));
}

std::string_view Message::request_uri() const {
    return is_request() ? bytes_.substr(target_, target_length_) : std::string_view{};
}
std::string_view Message::reason_phrase() const {
    return is_response() ? bytes_.substr(target_, target_length_) : std::string_view{};
}
std::string_view Message::start_line() const { return bytes_.substr(0, start_line_length_); }
std::string_view Message::body() const { return bytes_.substr(body_); }
std::size_t Message::fields_begin() const { return fields_begin_; }
std::size_t Message::fields_end() const { return fields_end_; }

HeaderField Message::field(std::size_t index) const {
    if (index >= count_) return {};
    const Slot& slot = slots_[index];
    return {.id = static_cast<HeaderId>(slot.id),
            .name = bytes_.substr(slot.begin, slot.name_length),
            .value = bytes_.substr(slot.value, slot.value_length),
            .begin = slot.begin,
            .end = slot.end};
}

std::optional<std::size_t> Message::find(HeaderId id, std::size_t from) const {
    if ((seen_ & bit(id)) == 0) return std::nullopt;
    for (std::size_t i = from; i < count_; ++i)
        if (slots_[i].id == static_cast<std::uint8_t>(id)) return i;
    return std::nullopt;
}

std::string_view Message::value(HeaderId id) const {
    const auto index = find(id);
    if (!index) return {};
    return bytes_.substr(slots_[*index].value, slots_[*index].value_length);
}

std::expected<OwnedMessage, ParseError> OwnedMessage::parse(std::string_view bytes) {
    auto copy = std::make_unique_for_overwrite<char[]>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), copy.get());
    const auto message = Message::parse(std::string_view(copy.get(), bytes.size()));
    if (!message) {
        gmgate::wipe(copy.get(), bytes.size());
        return std::unexpected(message.error());
    }
    return OwnedMessage(std::move(copy), bytes.size(), *message);
}

void OwnedMessage::wipe() noexcept {
    // bytes_ may hold more than the message (skipped line ends before, cut octets behind), so the size is kept apart.
    if (bytes_) gmgate::wipe(bytes_.get(), size_);
}

}  // namespace gmgate::sip
