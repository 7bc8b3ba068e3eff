#include "base/patterned_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "base/random.h"

namespace gmgate {
namespace {

constexpr char kMark = '\x01';  // before the index of a number; no text that people write has it
constexpr char kFirstIndex = '0';
constexpr std::size_t kMostNumbers = 64;
constexpr std::size_t kDigits = 4;
constexpr std::size_t kNodeOctets = 128;  // of a pattern's place in the table, about

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number that these digits are, when they can be told from it: not with a leading zero, not beyond 32 bits.
std::optional<std::uint32_t> number_of(std::string_view digits, bool is_behind_space) {
    if ((digits.size() < kDigits && !is_behind_space) || digits.front() == '0') return std::nullopt;
    std::uint32_t number = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return read.ec == std::errc{} ? std::optional(number) : std::nullopt;
}

struct Parts {
    std::string pattern;
    std::vector<std::uint32_t> numbers;  ///< each once
};

/// In place of the digits a mark and the number's index; false: there are too many already.
bool put_number(Parts& parts, std::uint32_t number) {
    const auto known = std::ranges::find(parts.numbers, number);
    const auto index = static_cast<std::size_t>(known - parts.numbers.begin());
    if (index == kMostNumbers) return false;
    if (known == parts.numbers.end()) parts.numbers.push_back(number);
    parts.pattern += kMark;
    parts.pattern += static_cast<char>(kFirstIndex + static_cast<char>(index));
    return true;
}

Parts parts_of(std::string_view text) {
    Parts parts;
    if (text.find(kMark) != std::string_view::npos) return {std::string(text), {}};
    parts.pattern.reserve(text.size());
    parts.numbers.reserve(16);
    for (auto at = text.begin(); at != text.end();) {
        const auto digits = std::find_if(at, text.end(), is_digit);
        parts.pattern.append(at, digits);
        at = std::find_if_not(digits, text.end(), is_digit);
        if (digits == at) break;
        const auto number = number_of({digits, at}, digits != text.begin() && digits[-1] == ' ');
        if (!number || !put_number(parts, *number)) parts.pattern.append(digits, at);
    }
    return parts;
}

}  // namespace

TextPatterns::TextPatterns() : patterns_(0, Hash::fresh()) {}

TextPatterns::Hash TextPatterns::Hash::fresh() {
    Hash hash;
    random_bytes(hash.key);
    return hash;
}

TextPatterns& TextPatterns::common() {
    static auto& all = *new TextPatterns;  // never ends: texts in other static objects may end later
    return all;
}

std::size_t TextPatterns::octets() const {
    const std::lock_guard guard(mutex_);
    return octets_;
}

std::size_t TextPatterns::size() const {
    const std::lock_guard guard(mutex_);
    return patterns_.size();
}

TextPatterns::Pattern* TextPatterns::take(std::string_view pattern, std::uint8_t numbers) {
    const std::lock_guard guard(mutex_);
    const auto known = patterns_.find(pattern);
    // A text with marks of its own may look like a pattern: it is told by having no numbers, and kept apart.
    if (known != patterns_.end() && known->second->numbers == numbers) {
        ++known->second->holders;
        return known->second.get();
    }
    auto made = std::make_unique<Pattern>(Pattern{std::string(pattern), this, 1, numbers});
    auto* fresh = made.get();
    if (known == patterns_.end()) patterns_.emplace(fresh->text, std::move(made));
    else static_cast<void>(made.release());  // not in the table
    octets_ += fresh->text.size() + kNodeOctets;
    return fresh;
}

TextPatterns::Pattern* TextPatterns::share(Pattern* pattern) {
    if (pattern == nullptr) return nullptr;
    const std::lock_guard guard(pattern->owner->mutex_);
    ++pattern->holders;
    return pattern;
}

void TextPatterns::release(Pattern* pattern) {
    if (pattern == nullptr) return;
    auto& owner = *pattern->owner;
    const std::lock_guard guard(owner.mutex_);
    if (--pattern->holders != 0) return;
    owner.octets_ -= pattern->text.size() + kNodeOctets;
    const auto at = owner.patterns_.find(pattern->text);
    if (at != owner.patterns_.end() && at->second.get() == pattern) owner.patterns_.erase(at);
    else delete pattern;
}

PatternedText::PatternedText(std::string_view text, TextPatterns& patterns) {
    if (text.empty()) return;
    auto parts = parts_of(text);
    const auto count = parts.numbers.size();
    if (count != 0) {
        numbers_ = std::make_unique<std::uint32_t[]>(count);
        std::ranges::copy(parts.numbers, numbers_.get());
    }
    pattern_ = patterns.take(parts.pattern, static_cast<std::uint8_t>(count));
}

PatternedText::PatternedText(const PatternedText& other) {
    if (other.numbers_) {
        numbers_ = std::make_unique<std::uint32_t[]>(other.pattern_->numbers);
        std::copy_n(other.numbers_.get(), other.pattern_->numbers, numbers_.get());
    }
    pattern_ = TextPatterns::share(other.pattern_);
}

template <class F>
bool PatternedText::for_each_piece(F f) const {
    if (pattern_ == nullptr) return true;
    std::string_view rest = pattern_->text;
    std::array<char, 10> digits{};
    while (pattern_->numbers != 0) {
        const auto mark = rest.find(kMark);
        if (mark == std::string_view::npos) break;
        if (mark != 0 && !f(rest.substr(0, mark))) return false;
        const auto number = numbers_[static_cast<std::size_t>(rest[mark + 1] - kFirstIndex)];
        const auto* end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        if (!f(std::string_view(digits.data(), end))) return false;
        rest.remove_prefix(mark + 2);
    }
    return rest.empty() || f(rest);
}

std::string PatternedText::text() const {
    std::string all;
    if (pattern_ != nullptr) all.reserve(pattern_->text.size() + 8UL * pattern_->numbers);
    for_each_piece([&](std::string_view piece) {
        all += piece;
        return true;
    });
    return all;
}

std::size_t PatternedText::octets() const {
    return sizeof *this + (pattern_ != nullptr ? pattern_->numbers * sizeof(std::uint32_t) : 0);
}

bool operator==(const PatternedText& a, std::string_view b) {
    const bool begins = a.for_each_piece([&](std::string_view piece) {
        if (!b.starts_with(piece)) return false;
        b.remove_prefix(piece.size());
        return true;
    });
    return begins && b.empty();
}

}  // namespace gmgate
