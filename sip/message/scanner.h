// Characters, line ends and header fields: the one place that looks at single octets of a SIP message. Internal to
// sip/.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "sip/message/message.h"

namespace gmgate::sip::scan {

/// Where a search found nothing.
inline constexpr std::size_t kNone = std::string_view::npos;

// Character classes (RFC 3261 §25.1), one bit each.
inline constexpr std::uint8_t kToken = 1;  ///< token
inline constexpr std::uint8_t kDigit = 2;
inline constexpr std::uint8_t kAlpha = 4;
inline constexpr std::uint8_t kSpace = 8;     ///< SP, HT, CR, LF: what may separate tokens in a folded value
inline constexpr std::uint8_t kControl = 16;  ///< C0 controls without HT, and DEL
inline constexpr std::uint8_t kHost = 32;     ///< host name; '_' tolerated
inline constexpr std::uint8_t kNoUri = 64;    ///< what stands in no URI: controls, white space, <, >, "

consteval std::array<std::uint8_t, 256> make_classes() {
    std::array<std::uint8_t, 256> table{};
    const auto add = [&table](std::string_view characters, std::uint8_t bits) {
        for (const char c : characters) table[static_cast<unsigned char>(c)] |= bits;
    };
    add("0123456789", kToken | kDigit | kHost);
    add("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", kToken | kAlpha | kHost);
    add("-.!%*_+`'~", kToken);
    add("-._", kHost);
    add(" \t\r\n", kSpace | kNoUri);
    add("<>\"", kNoUri);
    for (std::size_t c = 0; c < 0x20; ++c)
        if (c != '\t') table[c] |= kControl | kNoUri;
    table[0x7f] |= kControl | kNoUri;
    return table;
}
inline constexpr std::array<std::uint8_t, 256> kClasses = make_classes();

inline bool is(char c, std::uint8_t classes) { return (kClasses[static_cast<unsigned char>(c)] & classes) != 0; }
inline bool all(std::string_view text, std::uint8_t classes) {
    for (const char c : text)
        if (!is(c, classes)) return false;
    return true;
}
inline bool any(std::string_view text, std::uint8_t classes) {
    for (const char c : text)
        if (is(c, classes)) return true;
    return false;
}
inline bool is_token(std::string_view text) { return !text.empty() && all(text, kToken); }
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

/// The first LF, CR or NUL in [at, end), `end` when there is none.
inline const char* find_line_stop(const char* at, const char* end) {
#if defined(__SSE2__)
    const __m128i limit = _mm_set1_epi8(0x0d);
    for (; end - at >= 16; at += 16) {
        const __m128i octets = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        const __m128i low =
            _mm_cmpeq_epi8(_mm_min_epu8(octets, limit), octets);  // every octet ≤ CR: few besides the three
        for (auto mask = static_cast<unsigned>(_mm_movemask_epi8(low)); mask != 0; mask &= mask - 1) {
            const char* hit = at + __builtin_ctz(mask);
            if (*hit == '\n' || *hit == '\r' || *hit == '\0') return hit;
        }
    }
#endif
    while (at != end && *at != '\n' && *at != '\r' && *at != '\0') ++at;
    return at;
}

/// The first `wanted` in [at, end), `end` when there is none; made for a hit within a few octets.
inline const char* find_near(const char* at, const char* end, char wanted) {
#if defined(__SSE2__)
    if (end - at >= 16) {
        const __m128i octets = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        const auto mask = static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(octets, _mm_set1_epi8(wanted))));
        if (mask != 0) return at + __builtin_ctz(mask);
        at += 16;
    }
#endif
    if (at == end) return end;
    const void* hit = std::memchr(at, wanted, static_cast<std::size_t>(end - at));
    return hit != nullptr ? static_cast<const char*>(hit) : end;
}

/// The first `wanted`, '"' or '<' in [at, end), `end` when there is none.
inline const char* find_delimiter(const char* at, const char* end, char wanted) {
#if defined(__SSE2__)
    const __m128i first = _mm_set1_epi8(wanted), quote = _mm_set1_epi8('"'), bracket = _mm_set1_epi8('<');
    for (; end - at >= 16; at += 16) {
        const __m128i octets = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        const __m128i hits = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(octets, first), _mm_cmpeq_epi8(octets, quote)),
                                          _mm_cmpeq_epi8(octets, bracket));
        const auto mask = static_cast<unsigned>(_mm_movemask_epi8(hits));
        if (mask != 0) return at + __builtin_ctz(mask);
    }
#endif
    while (at != end && *at != wanted && *at != '"' && *at != '<') ++at;
    return at;
}

/// After the quoted string that begins at `at` (a '"'), backslash escapes respected; nullptr when it does not end.
inline const char* skip_quoted(const char* at, const char* end) {
    bool escaped = false;
    while (++at != end) {
        if (escaped) escaped = false;
        else if (*at == '\\') escaped = true;
        else if (*at == '"') return at + 1;
    }
    return nullptr;
}

/// One line: where its text ends and where the next one begins.
struct Line {
    const char* text_end = nullptr;
    const char* next = nullptr;    ///< after the line end; nullptr when the line is broken or unfinished
    const char* reason = nullptr;  ///< why; nullptr when there simply is no line end yet
};
/// What ends a line.
enum class LineEnds {
    crlf,      ///< CRLF alone (RFC 3261 §7)
    tolerant,  ///< a bare LF, too: only to answer 400 to who sends them
};
/// NUL, a CR that no LF follows and an LF that no CR precedes break a line: other parsers disagree about them, which is
/// how fields get smuggled.
inline Line read_line(const char* at, const char* end, LineEnds ends = LineEnds::crlf) {
    const char* stop = find_line_stop(at, end);
    if (stop == end) return {end, nullptr, nullptr};
    if (*stop == '\n' && ends == LineEnds::tolerant) return {stop, stop + 1, nullptr};
    if (*stop == '\n') return {stop, nullptr, "LF without CR"};
    if (*stop == '\0') return {stop, nullptr, "NUL in the header section"};
    if (stop + 1 == end) return {stop, nullptr, nullptr};
    if (stop[1] == '\n') return {stop, stop + 2, nullptr};
    return {stop, nullptr, "CR without LF"};
}

/// One header field in the caller's bytes.
struct FieldSpan {
    HeaderId id = HeaderId::other;
    const char* begin = nullptr;
    const char* name_end = nullptr;
    const char* value = nullptr;
    const char* value_end = nullptr;
    const char* end = nullptr;  ///< after the line end of the last folded line

    std::string_view name() const { return {begin, name_end}; }
    std::string_view text() const { return {value, value_end}; }
};
/// Reads the field that begins at `at`, folded lines included. Returns nullptr, or why there is none; `field.end` is
/// then the place.
const char* read_field(const char* at, const char* end, FieldSpan& field, LineEnds ends = LineEnds::crlf);

/// The length of the empty line at `at`: 2, 1 for a bare LF where that is tolerated, 0 when the line is not empty.
inline std::size_t empty_line(const char* at, const char* end, LineEnds ends = LineEnds::crlf) {
    if (at == end) return 0;
    if (*at == '\n' && ends == LineEnds::tolerant) return 1;
    return end - at >= 2 && at[0] == '\r' && at[1] == '\n' ? 2 : 0;
}

/// What a response to a request that did not parse can still copy. A tolerant reader for the error path only.
struct Salvage {
    std::string_view method;
    std::string lines;  ///< Via…, From, To, Call-ID, CSeq as they came, CRLF after each
    bool has_to_tag = false;
    bool answerable = false;  ///< a request other than ACK, with all five fields
};
Salvage salvage(std::string_view bytes, std::string_view to_tag);
/// The same without copying anything.
bool is_answerable(std::string_view bytes);

inline constexpr std::string_view kVersionNotSupported = "SIP version not supported";
/// More than whoever sent it may send: MessageLimit.
inline constexpr std::string_view kTooLarge = "message too large", kHeadTooLarge = "header section too large";
/// A method that we do not know, and another one in CSeq: which of the two is meant only a later standard can say.
inline constexpr std::string_view kUnknownMethodDiffers = "CSeq method differs from the unknown one of the request";

}  // namespace gmgate::sip::scan
