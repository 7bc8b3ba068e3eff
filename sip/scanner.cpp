#include "sip/scanner.h"

#include "sip/headers.h"

namespace gmgate::sip::scan {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t'; }

/// Name, colon and start of the value within the field's first line, which ends at `line_end`.
const char* read_name(const char* line_end, FieldSpan& field) {
    const char* colon = find_near(field.begin, line_end, ':');
    field.end = field.begin;
    if (colon == line_end) return "header field without a colon";
    field.name_end = colon;
    while (field.name_end != field.begin && is_blank(field.name_end[-1])) --field.name_end;  // RFC 3261 §7.3.1: `Name : value`
    field.id = header_id(field.name());
    // A known name is a token by being known.
    if (field.id == HeaderId::other && !is_token(field.name())) return "bad header field name";
    field.value = colon + 1;
    return nullptr;
}

}  // namespace

const char* read_field(const char* at, const char* end, FieldSpan& field, LineEnds ends) {
    field.begin = at;
    Line line = read_line(at, end, ends);
    if (line.next != nullptr) {
        if (const char* reason = read_name(line.text_end, field)) return reason;
        while (line.next != nullptr && line.next != end && is_blank(*line.next))  // folded
            line = read_line(line.next, end, ends);
    }
    if (line.next == nullptr) {
        field.end = line.text_end;
        return line.reason != nullptr ? line.reason : "header section does not end";
    }
    field.end = line.next;
    field.value_end = line.text_end;
    while (field.value != field.value_end && is(*field.value, kSpace)) ++field.value;
    while (field.value_end != field.value && is(field.value_end[-1], kSpace)) --field.value_end;
    return nullptr;
}

namespace {

constexpr std::uint64_t bit(HeaderId id) { return std::uint64_t{1} << static_cast<unsigned>(id); }
constexpr std::uint64_t kAnswerFields =
    bit(HeaderId::via) | bit(HeaderId::from) | bit(HeaderId::to) | bit(HeaderId::call_id) | bit(HeaderId::cseq);

/// An LF without its CR in a folded value: it must not get into an answer.
bool has_bare_lf(std::string_view text) {
    for (std::size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1))
        if (at == 0 || text[at - 1] != '\r') return true;
    return false;
}

/// Calls keep(field) for what a response copies: every Via, the first of the others. Broken lines are stepped over. Returns the
/// method of a request that may be answered, "" when there is none.
template <class Keep>
std::string_view walk_answer_fields(std::string_view bytes, Keep&& keep) {
    const char* at = bytes.data();
    const char* const end = at + bytes.size();
    const std::size_t space = bytes.find(' ');
    const std::string_view method = bytes.substr(0, space == std::string_view::npos ? 0 : space);
    if (!is_token(method) || method == "ACK") return {};  // a response's "SIP/2.0" is no token
    std::uint64_t seen = 0;
    constexpr LineEnds kEnds = LineEnds::tolerant;
    for (Line line = read_line(at, end, kEnds); at != end; line = read_line(at, end, kEnds)) {
        FieldSpan field;
        const bool is_first = at == bytes.data();
        if (!is_first && empty_line(at, end, kEnds) != 0) break;
        if (!is_first && read_field(at, end, field, kEnds) == nullptr) {
            const std::uint64_t mine = has_bare_lf({field.begin, field.value_end}) ? 0 : bit(field.id) & kAnswerFields;
            if (mine != 0 && !field.text().empty() && (field.id == HeaderId::via || (seen & mine) == 0)) keep(field);
            if (!field.text().empty()) seen |= mine;
            at = field.end;
        } else if (line.next != nullptr) {
            at = line.next;
        } else {  // NUL, stray CR: go on behind the next LF
            const void* lf = std::memchr(at, '\n', static_cast<std::size_t>(end - at));
            if (lf == nullptr) break;
            at = static_cast<const char*>(lf) + 1;
        }
    }
    return seen == kAnswerFields ? method : std::string_view{};
}

/// Line ends before the start line (RFC 3261 §7.5) are no part of it.
std::string_view skip_line_ends(std::string_view bytes) {
    const std::size_t first = bytes.find_first_not_of("\r\n");
    return first == std::string_view::npos ? std::string_view{} : bytes.substr(first);
}

}  // namespace

bool is_answerable(std::string_view bytes) {
    return !walk_answer_fields(skip_line_ends(bytes), [](const FieldSpan&) {}).empty();
}

Salvage salvage(std::string_view bytes, std::string_view to_tag) {
    Salvage result;
    result.lines.reserve(1024);
    result.method = walk_answer_fields(skip_line_ends(bytes), [&](const FieldSpan& field) {
        result.lines.append(field.begin, field.value_end);
        if (field.id == HeaderId::to) {
            const auto to = NameAddr::parse(field.text());
            result.has_to_tag = to && to->parameter("tag").has_value();
            if (!result.has_to_tag) result.lines.append(";tag=").append(to_tag);
        }
        result.lines += "\r\n";
    });
    result.answerable = !result.method.empty();
    return result;
}

}  // namespace gmgate::sip::scan
