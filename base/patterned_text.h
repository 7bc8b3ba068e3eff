// Texts of which a process keeps many that differ in numbers only: what phones of one family offer, what was sent to
// them, what is said about their requests. What they have in common is kept once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/siphash.h"

namespace gmgate {

/// The patterns of some texts, each as long as a text has it. Outlives its texts. Any thread.
class TextPatterns {
public:
    TextPatterns();
    /// The patterns of texts that name no others.
    static TextPatterns& common();
    /// What the patterns take, about.
    std::size_t octets() const;
    std::size_t size() const;

private:
    friend class PatternedText;
    struct Pattern {
        std::string text;  ///< a mark and an index in place of each number
        TextPatterns* owner = nullptr;
        std::size_t holders = 0;
        std::uint8_t numbers = 0;  ///< 0: the text is what it says
    };
    struct Hash {
        SipHashKey key{};  ///< strangers write texts
        static Hash fresh();
        std::size_t operator()(std::string_view text) const noexcept { return siphash(key, text); }
    };
    Pattern* take(std::string_view pattern, std::uint8_t numbers);
    static Pattern* share(Pattern* pattern);
    static void release(Pattern* pattern);

    mutable std::mutex mutex_;
    std::unordered_map<std::string_view, std::unique_ptr<Pattern>, Hash> patterns_;  ///< by their text
    std::size_t octets_ = 0;
};

/// A text, kept as its pattern and its numbers: decimal ones of four digits and more, and those behind a space. It
/// takes two words and four octets for each number when others have the pattern.
class PatternedText {
public:
    PatternedText() = default;
    explicit PatternedText(std::string_view text, TextPatterns& patterns = TextPatterns::common());
    PatternedText(const PatternedText& other);
    PatternedText(PatternedText&& other) noexcept
        : pattern_(std::exchange(other.pattern_, nullptr)), numbers_(std::move(other.numbers_)) {}
    PatternedText& operator=(const PatternedText& other) { return *this = PatternedText(other); }
    PatternedText& operator=(PatternedText&& other) noexcept {
        std::swap(pattern_, other.pattern_);
        std::swap(numbers_, other.numbers_);
        return *this;
    }
    PatternedText& operator=(std::string_view text) { return *this = PatternedText(text); }
    ~PatternedText() { TextPatterns::release(pattern_); }

    bool empty() const { return pattern_ == nullptr; }
    /// The text, octet for octet.
    std::string text() const;
    // NOLINTNEXTLINE(google-explicit-constructor): it is a text, only kept in another way
    operator std::string() const { return text(); }
    /// What it takes beside its pattern.
    std::size_t octets() const;
    /// Compares without making the text.
    friend bool operator==(const PatternedText& a, std::string_view b);

private:
    using Pattern = TextPatterns::Pattern;
    /// Its pieces in order, until `f` returns false; whether it never did.
    template <class F>
    bool for_each_piece(F f) const;

    Pattern* pattern_ = nullptr;  ///< null: an empty text
    std::unique_ptr<std::uint32_t[]> numbers_;
};

}  // namespace gmgate
