#include "sip/message/framer.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/secret.h"
#include "sip/message/headers.h"
#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

constexpr std::size_t kMaxBuffer = 2 * kMaxMessage;

/// Does the first line say SIP? Its errors are for Message::parse, which can have them answered; this only tells
/// garbage apart.
bool is_sip_line(std::string_view line) {
    for (std::size_t i = 0; i + 4 <= line.size(); ++i)
        if (line[i + 3] == '/' && same_token(line.substr(i, 4), "SIP/")) return true;
    return false;
}

/// Content-Length of a header section, or why it tells none.
struct Length {
    std::optional<std::uint32_t> octets;
    const char* body = nullptr;  // where the header section has ended
    std::string_view reason;
};
Length read_length(const char* begin, const char* end) {
    const auto none = [](std::string_view reason) {
        return Length{.octets = std::nullopt, .body = nullptr, .reason = reason};
    };
    Length length;
    const char* at = scan::read_line(begin, end).next;
    while (at != nullptr && at != end && scan::empty_line(at, end) == 0) {
        scan::FieldSpan field;
        if (const char* reason = scan::read_field(at, end, field)) return none(reason);
        at = field.end;
        if (field.id != HeaderId::content_length) continue;
        if (length.octets) return none("Content-Length occurs twice");
        length.octets = parse_u32(field.text());
        if (!length.octets) return none("bad Content-Length");
    }
    if (at == nullptr || at == end) return none("header section does not end");
    if (!length.octets) return none("Content-Length is missing");
    length.body = at + scan::empty_line(at, end);
    return length;
}

}  // namespace

bool is_one_frame(std::string_view bytes) {
    const char* const end = bytes.data() + bytes.size();
    const Length length = read_length(bytes.data(), end);
    return length.octets && *length.octets == static_cast<std::size_t>(end - length.body);
}

Framer::~Framer() { wipe(buffer_.data(), buffer_.size()); }

/// Overwrites what was handed out before.
void Framer::forget() {
    wipe(buffer_.data() + wiped_, consumed_ - wiped_);
    wiped_ = consumed_;
    if (consumed_ != buffer_.size()) return;
    buffer_.clear();
    consumed_ = wiped_ = 0;
}

/// Brings what is still held to the front, with space for `size` octets more, and leaves no copy of it elsewhere.
void Framer::make_room(std::size_t size) {
    const std::size_t held = rest().size();
    if (held + size > buffer_.capacity()) {
        std::string larger;
        larger.reserve(std::max(held + size, 2 * buffer_.capacity()));
        larger.append(rest());
        wipe(buffer_.data(), buffer_.size());
        buffer_.swap(larger);
    } else if (consumed_ != 0) {
        std::memmove(buffer_.data(), buffer_.data() + consumed_, held);
        wipe(buffer_.data() + held, buffer_.size() - held);
        buffer_.resize(held);
    }
    consumed_ = wiped_ = 0;
}

bool Framer::feed(std::string_view bytes) {
    if (failure_.frame == Frame::error || bytes.size() > kMaxBuffer - rest().size()) return false;
    forget();
    make_room(bytes.size());
    buffer_.append(bytes);
    return true;
}

FrameResult Framer::fail(std::size_t length, std::string_view reason) {
    failure_ = {.frame = Frame::error, .bytes = rest().substr(0, length), .reason = reason};
    return failure_;
}

FrameResult Framer::next() {
    if (failure_.frame == Frame::error) return failure_;
    forget();
    if (total_ == 0) {
        if (scanned_ == 0)
            if (const FrameResult result = keep_alive(); result.frame != Frame::message) return result;
        if (const FrameResult result = find_head_end(); total_ == 0) return result;
    }
    const std::string_view bytes = rest();
    if (bytes.size() < total_) return {};
    const FrameResult result{.frame = Frame::message, .bytes = bytes.substr(0, total_), .reason = {}};
    consumed_ += total_;
    scanned_ = line_ = total_ = keep_alives_ = 0;
    half_ping_ = false;
    return result;
}

/// Skips line ends between messages. `message` means: something else begins here. A phone whose link was away for long
/// may send all its keep-alives at once, and then its request.
FrameResult Framer::keep_alive() {
    for (std::string_view bytes = rest(); !bytes.empty(); bytes = rest()) {
        if (bytes.front() != '\r' && bytes.front() != '\n') return {.frame = Frame::message, .bytes = {}, .reason = {}};
        const bool is_crlf = bytes.front() == '\r';
        if (is_crlf && bytes.size() == 1) return {};
        if (is_crlf && bytes[1] != '\n') return fail(1, "CR without LF");
        if (++keep_alives_ > kMaxKeepAlive) return fail(0, "too many keep-alives at once");
        consumed_ += is_crlf ? 2 : 1;
        if (!is_crlf) continue;
        half_ping_ = !half_ping_;
        if (!half_ping_) return {.frame = Frame::ping, .bytes = {}, .reason = {}};
    }
    keep_alives_ = 0;
    return {};
}

FrameResult Framer::find_head_end() {
    const std::size_t most = std::min(limit_.message, kMaxMessage);
    const std::string_view bytes = rest().substr(0, most);
    const char* const begin = bytes.data();
    const char* const end = begin + bytes.size();
    if (!scan::is(bytes.front(), scan::kToken)) return fail(0, "this is not SIP");
    if (scanned_ > bytes.size()) return fail(bytes.size(), scan::kHeadTooLarge);  // the limit has sunk meanwhile
    while (true) {
        const scan::Line line = scan::read_line(begin + scanned_, end);
        scanned_ = static_cast<std::size_t>(line.text_end - begin);
        if (line.reason != nullptr) return fail(scanned_, line.reason);
        if (line.next == nullptr) return bytes.size() == most ? fail(bytes.size(), scan::kHeadTooLarge) : FrameResult{};
        if (line_ == 0 && !is_sip_line(bytes.substr(0, scanned_))) return fail(scanned_, "this is not SIP");
        const bool is_last = scanned_ == line_;
        line_ = scanned_ = static_cast<std::size_t>(line.next - begin);
        if (is_last) return measure(line_);
    }
}

/// The header section is whole: sets total_ from Content-Length.
FrameResult Framer::measure(std::size_t head_length) {
    const Length length = read_length(rest().data(), rest().data() + head_length);
    if (!length.octets) return fail(head_length, length.reason);
    const std::size_t most = std::min(limit_.message, kMaxMessage);
    if (head_length > most || *length.octets > most - head_length || *length.octets > limit_.body)
        return fail(head_length, scan::kTooLarge);
    total_ = head_length + *length.octets;
    return {};
}

}  // namespace gmgate::sip
