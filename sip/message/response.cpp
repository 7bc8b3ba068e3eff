// Responses that we make ourselves, declared in edit.h (RFC 3261 §8.2.6).
#include <cstdint>

#include <fmt/format.h>

#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "sip/message/scanner.h"

namespace gmgate::sip {
namespace {

/// A line of `request` as it came, without its line end.
void copy_line(std::string& out, const Message& request, const HeaderField& field) {
    const std::size_t end = static_cast<std::size_t>(field.value.data() - request.bytes().data()) + field.value.size();
    out.append(request.bytes().substr(field.begin, end - field.begin));
}

void append_clean(std::string& out, std::string_view line) {
    for (const char c : line) out += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
    out += "\r\n";
}

void append_status_line(std::string& out, int status, std::string_view reason_phrase) {
    append_clean(out, fmt::format("SIP/2.0 {} {}", status, reason_phrase));
}

/// FNV-1a, for a tag that is the same for every copy of one request.
std::uint64_t digest_of(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return hash;
}

bool is_copied(const HeaderField& field, int status) {
    switch (field.id) {
        case HeaderId::via:
        case HeaderId::from:
        case HeaderId::to:
        case HeaderId::call_id:
        case HeaderId::cseq:
            return true;
        case HeaderId::other:
            return status == 100 && same_token(field.name, "Timestamp");  // RFC 3261 §8.2.6.1
        default:
            return false;
    }
}

}  // namespace

std::string make_response(const Message& request, int status, std::string_view reason_phrase, std::string_view to_tag,
                          const std::vector<std::string>& extra) {
    std::size_t size = 128 + reason_phrase.size() + to_tag.size();
    for (std::size_t i = 0; i < request.field_count(); ++i)
        if (const HeaderField field = request.field(i); is_copied(field, status)) size += field.end - field.begin + 2;
    for (const std::string& line : extra) size += line.size() + 2;
    std::string out;
    out.reserve(size);
    append_status_line(out, status, reason_phrase);
    for (std::size_t i = 0; i < request.field_count(); ++i) {
        const HeaderField field = request.field(i);
        if (!is_copied(field, status)) continue;
        copy_line(out, request, field);
        if (field.id == HeaderId::to && status > 100 && !to_tag.empty() && tag_of(request, HeaderId::to).empty())
            out.append(";tag=").append(to_tag);
        out += "\r\n";
    }
    for (const std::string& line : extra) append_clean(out, line);
    return out.append("Content-Length: 0\r\n\r\n");
}

std::string warning_line(std::string_view why) {
    constexpr std::size_t kLongest = 240;
    std::string text(why.substr(0, kLongest));
    for (char& c : text) {
        if (c == '"' || c == '\\') c = '\'';
        else if (c < ' ' || c > '~') c = '?';  // octets of UTF-8, too: the cut may have halved a character
    }
    return fmt::format("Warning: 399 gmgate \"{}\"", text);
}

std::string with_body(std::string response, std::string_view content_type, std::string_view body) {
    constexpr std::string_view kEmpty = "Content-Length: 0\r\n\r\n";
    if (!response.ends_with(kEmpty)) return response;
    response.resize(response.size() - kEmpty.size());
    append_clean(response, fmt::format("Content-Type: {}", content_type));
    response += fmt::format("Content-Length: {}\r\n\r\n", body.size());
    return response.append(body);
}

std::optional<std::string> make_bad_request(std::string_view bytes, const ParseError& error) {
    if (!error.answerable) return std::nullopt;
    const std::string tag = fmt::format("{:016x}", digest_of(bytes));
    const scan::Salvage salvaged = scan::salvage(bytes, tag);
    if (!salvaged.answerable) return std::nullopt;
    int status = 400;
    std::string_view phrase = error.reason;
    if (error.reason == scan::kVersionNotSupported) status = 505, phrase = "Version Not Supported";
    if (error.reason == scan::kUnknownMethodDiffers) status = 501, phrase = "Not Implemented";  // RFC 4475 §3.1.2.18
    if (error.reason == scan::kTooLarge || error.reason == scan::kHeadTooLarge)
        status = 513, phrase = "Message Too Large";
    std::string out;
    out.reserve(salvaged.lines.size() + 128);
    append_status_line(out, status, phrase);
    out.append(salvaged.lines);
    if (status < 500) append_clean(out, warning_line(error.reason));
    return out.append("Content-Length: 0\r\n\r\n");
}

}  // namespace gmgate::sip
