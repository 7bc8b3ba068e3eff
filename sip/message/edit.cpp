#include "sip/message/edit.h"

#include <algorithm>
#include <cassert>
#include <tuple>

#include "sip/message/headers.h"

namespace gmgate::sip {
namespace {

/// Room that most edits need, taken at once.
constexpr std::size_t kChanges = 16, kTexts = 640;

/// One element of a comma list and whether it stays.
struct Element {
    std::size_t begin, end;
    bool stays;
};

/// `text` without the elements that do not stay; each that stays keeps the separator before it, unless it is now the
/// first.
std::string without(std::string_view text, const std::vector<Element>& elements) {
    std::string result;
    result.reserve(text.size());
    result.append(text.substr(0, elements.front().begin));
    bool is_first = true;
    for (std::size_t i = 0; i < elements.size(); ++i) {
        if (!elements[i].stays) continue;
        const std::size_t begin = is_first || i == 0 ? elements[i].begin : elements[i - 1].end;
        result.append(text.substr(begin, elements[i].end - begin));
        is_first = false;
    }
    return result.append(text.substr(elements.back().end));
}

/// The comma list without `tag`: nullopt when it does not name it, "" when nothing is left.
std::optional<std::string> without_tag(std::string_view value, std::string_view tag) {
    std::vector<Element> elements;
    std::size_t found = 0;
    Split split(value, ',');
    while (const auto element = split.next()) {
        if (element->empty()) continue;
        const auto begin = static_cast<std::size_t>(element->data() - value.data());
        const bool is_it = same_token(*element, tag);
        found += is_it ? 1 : 0;
        elements.push_back({.begin = begin, .end = begin + element->size(), .stays = !is_it});
    }
    if (found == 0) return std::nullopt;
    return found == elements.size() ? std::string() : without(value, elements);
}

std::size_t value_begin(const Message& message, const HeaderField& field) {
    return static_cast<std::size_t>(field.value.data() - message.bytes().data());
}

/// What stands before the value, "l: ", when the field is written as everybody reads it. Else "": "Content-Length : 5"
/// and a folded line are the same to us, but perhaps not to whoever reads the stream after us.
std::string_view plain_name(const Message& message, const HeaderField& field) {
    const std::string_view line = message.bytes().substr(field.begin, field.end - field.begin);
    const std::size_t before = value_begin(message, field) - field.begin,
                      behind = line.size() - before - field.value.size();
    const bool is_plain =
        line[field.name.size()] == ':' && before <= field.name.size() + 2 && behind == 2 && line.ends_with("\r\n");
    return is_plain ? line.substr(0, before) : std::string_view{};
}

/// CSeq on one line, when it came on several. RFC 3261 §7.3.1 allows folds, and Kamailio finds no method behind one: it
/// closes the connection, which others use as well.
struct PlainCseq {
    std::size_t begin, end;
    std::string text;
};
std::optional<PlainCseq> unfolded_cseq(const Message& message) {
    const auto index = message.find(HeaderId::cseq);
    if (!index) return std::nullopt;
    const HeaderField& field = message.field(*index);
    const std::string_view line = message.bytes().substr(field.begin, field.end - field.begin);
    if (line.find('\n') + 1 == line.size()) return std::nullopt;
    const std::string_view value = field.value;
    const std::size_t digits = std::min(value.find_first_not_of("0123456789"), value.size());
    return PlainCseq{field.begin, field.end,
                     std::string(field.name) + ": " + std::string(value.substr(0, digits)) + " " +
                         std::string(trim(value.substr(digits))) + "\r\n"};
}

}  // namespace

Edit::Text Edit::keep(std::string_view text) {
    if (texts_.empty()) texts_.reserve(std::max(kTexts, text.size()));
    const Text kept{texts_.size(), text.size()};
    texts_ += text;
    return kept;
}

// A line end in it would begin a header field of its own.
Edit::Text Edit::keep_line(Pieces line, std::string_view end) {
    Text kept = keep({});
    for (const std::string_view piece : line) texts_ += piece;
    for (std::size_t i = kept.begin; i < texts_.size(); ++i)
        if (texts_[i] == '\r' || texts_[i] == '\n' || texts_[i] == '\0') texts_[i] = ' ';
    texts_ += end;
    kept.size = texts_.size() - kept.begin;
    return kept;
}

void Edit::add(std::size_t begin, std::size_t end, Text text, bool in_front) {
    const bool is_valid = begin <= end && end <= message_.bytes().size();
    assert(is_valid);
    if (!is_valid) return;
    for (const Change& c : changes_) {
        const bool overlaps = begin < c.end && c.begin < end;  // false for an insertion at either edge
        if (!overlaps) continue;
        [[maybe_unused]] const bool is_same = c.begin == begin && c.end == end && view(c.text) == view(text);
        assert(is_same && "two edits touch the same octets");
        return;
    }
    if (changes_.empty()) changes_.reserve(kChanges);
    const Change change{.begin = begin, .end = end, .text = text, .order = in_front ? --prepended_ : ++appended_};
    const auto key = [](const Change& c) { return std::tuple(c.begin, c.begin != c.end, c.order); };
    const auto place = std::ranges::upper_bound(changes_, key(change), {}, key);
    changes_.insert(place, change);
}

Edit::Change* Edit::change_of_value(const HeaderField& field) {
    const std::size_t begin = value_begin(message_, field);
    for (Change& c : changes_)
        if (c.begin == begin && c.end == begin + field.value.size()) return &c;
    return nullptr;
}

bool Edit::is_removed(const HeaderField& field) const {
    return std::ranges::any_of(
        changes_, [&](const Change& c) { return c.begin == field.begin && c.end == field.end && c.text.size == 0; });
}

std::string_view Edit::current_value(const HeaderField& field) {
    const Change* change = change_of_value(field);
    return change != nullptr ? view(change->text) : field.value;
}

void Edit::set_value(const HeaderField& field, std::string_view value) {
    if (is_removed(field)) return;
    const std::size_t begin = value_begin(message_, field);
    const Text text = keep_line({value}, {});
    if (Change* change = change_of_value(field)) change->text = text;
    else add(begin, begin + field.value.size(), text);
}

void Edit::set_start_line(std::string_view text) { add(0, message_.start_line().size(), keep_line({text}, {})); }

void Edit::remove_field(std::size_t index) {
    const HeaderField field = message_.field(index);
    if (field.begin == field.end) return;
    std::erase_if(changes_, [&field](const Change& c) { return c.begin > field.begin && c.end < field.end; });
    add(field.begin, field.end, Text{});
}

void Edit::remove_all(HeaderId id) {
    for (auto i = message_.find(id); i; i = message_.find(id, *i + 1)) remove_field(*i);
}

void Edit::remove_all(std::span<const std::string_view> names) {
    for (std::size_t i = 0; i < message_.field_count(); ++i) {
        const std::string_view name = message_.field(i).name;
        if (std::ranges::any_of(names, [name](std::string_view n) { return same_token(name, n); })) remove_field(i);
    }
}

void Edit::replace_value(std::size_t index, std::string_view value) {
    if (index < message_.field_count()) set_value(message_.field(index), value);
}

void Edit::replace(std::size_t begin, std::size_t end, std::string_view text) { add(begin, end, keep(text)); }

void Edit::insert_before(HeaderId before, Pieces line) {
    const auto index = message_.find(before);
    if (!index) return append(line);
    const std::size_t at = message_.field(*index).begin;
    add(at, at, keep_line(line, "\r\n"));
}

void Edit::prepend(std::string_view line) {
    add(message_.fields_begin(), message_.fields_begin(), keep_line({line}, "\r\n"), true);
}
void Edit::append(Pieces line) { add(message_.fields_end(), message_.fields_end(), keep_line(line, "\r\n")); }

bool Edit::remove_option_tag(HeaderId id, std::string_view tag) {
    bool found = false;
    for (auto i = message_.find(id); i; i = message_.find(id, *i + 1)) {
        const HeaderField field = message_.field(*i);
        if (is_removed(field)) continue;
        auto rest = without_tag(current_value(field), tag);
        if (!rest) continue;
        found = true;
        if (rest->empty()) remove_field(*i);
        else set_value(field, *rest);
    }
    return found;
}

void Edit::set_body(std::string_view body) {
    body_size_ = body.size();
    const std::size_t end = message_.bytes().size();
    add(end - message_.body().size(), end, keep(body));
}

bool Edit::has_right_length() const {
    const auto index = message_.find(HeaderId::content_length);
    if (!index) return false;
    const HeaderField field = message_.field(*index);
    const bool is_touched =
        std::ranges::any_of(changes_, [&](const Change& c) { return c.begin < field.end && field.begin < c.end; });
    return !is_touched && !plain_name(message_, field).empty() && field.value == std::to_string(body_size_);
}

void Edit::write_length() {
    const auto index = message_.find(HeaderId::content_length);
    const std::string size = std::to_string(body_size_);
    if (!index) return append({"Content-Length: ", size});
    const HeaderField field = message_.field(*index);
    const std::string_view name = plain_name(message_, field);
    std::erase_if(changes_, [&field](const Change& c) { return c.begin < field.end && field.begin < c.end; });
    add(field.begin, field.end, keep_line({name.empty() ? "Content-Length: " : name, size}, "\r\n"));
}

std::string Edit::to_string() const {
    const auto cseq = unfolded_cseq(message_);
    if (has_right_length() && !cseq) return write();
    Edit plain = *this;
    if (!has_right_length()) plain.write_length();
    if (cseq) plain.replace(cseq->begin, cseq->end, cseq->text);
    return plain.write();
}

std::string Edit::write() const {
    const std::string_view bytes = message_.bytes();
    std::size_t size = bytes.size();
    for (const Change& c : changes_) size = size + c.text.size - (c.end - c.begin);
    std::string result;
    result.reserve(size);
    std::size_t at = 0;
    for (const Change& c : changes_) {
        result.append(bytes.substr(at, c.begin - at)).append(view(c.text));
        at = c.end;
    }
    return result.append(bytes.substr(at));
}

}  // namespace gmgate::sip
