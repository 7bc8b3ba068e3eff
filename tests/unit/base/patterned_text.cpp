#include "base/patterned_text.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/interned.h"

using gmgate::Interned;
using gmgate::PatternedText;
using gmgate::TextPatterns;

TEST_CASE("A patterned text is what it was, octet for octet, whatever is in it") {
    const std::vector<std::string> texts{
        "",
        "0",
        "7",
        "set 7",
        "set 07 of 0",
        " 00123 0123 1234",
        "port-s=0001358;port-c=1358",
        "4294967295 4294967296 99999999999999999999999",
        "ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;spi-c=1234567;spi-s=1234567;port-c=5062",
        std::string("\x01") + "0 12345",
        std::string("a\0b 12345", 9),
        "12345\x01"
        "0",
    };
    TextPatterns patterns;
    for (const auto& text : texts) {
        const PatternedText kept(text, patterns);
        CHECK(kept.text() == text);
        CHECK(kept == text);
        CHECK_FALSE(kept == text + "0");
        CHECK_FALSE(kept == "another");
        CHECK(kept.empty() == text.empty());
        const PatternedText copy = kept;
        CHECK(copy.text() == text);
    }
    CHECK(patterns.size() == 0);
    CHECK(patterns.octets() == 0);
}

TEST_CASE("A patterned text has so many numbers as there are places for them; the others stay where they are") {
    std::string text;
    for (int i = 0; i < 200; ++i) text += " " + std::to_string(10'000 + i);
    CHECK(PatternedText(text).text() == text);
}

TEST_CASE("Patterned texts that differ in numbers have one pattern, and it goes with the last of them") {
    TextPatterns patterns;
    {
        std::vector<PatternedText> texts;
        for (int i = 0; i < 100; ++i)
            texts.emplace_back("spi-c=" + std::to_string(1'000'000 + i) + ";port-c=" + std::to_string(5062 + i),
                               patterns);
        CHECK(patterns.size() == 1);
        CHECK(texts[42] == "spi-c=1000042;port-c=5104");
        texts.erase(texts.begin(), texts.end() - 1);
        CHECK(patterns.size() == 1);
        CHECK(texts.front() == "spi-c=1000099;port-c=5161");
        // One that looks like the pattern, mark and all, is another text.
        const PatternedText odd(
            "spi-c=\x01"
            "0;port-c=\x01"
            "1",
            patterns);
        CHECK(odd.text() ==
              "spi-c=\x01"
              "0;port-c=\x01"
              "1");
        CHECK(texts.front() == "spi-c=1000099;port-c=5161");
        texts.front() = "other words";
        CHECK(patterns.size() == 0);
        CHECK(odd.text() ==
              "spi-c=\x01"
              "0;port-c=\x01"
              "1");
    }
    CHECK(patterns.octets() == 0);
}

TEST_CASE("Interned values that are equal are one, and go with the last of them") {
    using Words = Interned<std::vector<std::string>>;
    const auto before = Words::count();
    {
        const Words one(std::vector<std::string>{"a", "b"}), same(std::vector<std::string>{"a", "b"});
        Words other(std::vector<std::string>{"c"});
        CHECK(&one.value() == &same.value());
        CHECK(one == same);
        CHECK_FALSE(one == other);
        CHECK(Words::count() == before + 2);
        other = one;
        CHECK(Words::count() == before + 1);
        CHECK(Words().value().empty());
        CHECK(Words(std::vector<std::string>{}) == Words());
    }
    CHECK(Words::count() == before);
}
