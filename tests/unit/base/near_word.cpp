// What the programs say when a word is mistyped, and when lines get the prefixes that journald reads.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/journal.h"
#include "base/near_word.h"

using namespace gmgate;

TEST_CASE("A mistyped word gets the nearest known one, and one that is like none gets none") {
    const std::vector<std::string> known{"status", "registrations", "show", "why", "sec-agree-feature", "tls"};
    CHECK(near_word("statsu", known) == "status");
    CHECK(near_word("registration", known) == "registrations");
    CHECK(near_word("Sec-Agree-Featrue", known) == "sec-agree-feature");
    CHECK(near_word("tsl", known) == "tls");
    CHECK(near_word("status", known).empty());
    CHECK(near_word("kamailio", known).empty());
    CHECK(near_word("x", {"yy"}).empty());
    CHECK(near_word("", known).empty());
    CHECK(near_word(std::string(100000, 'a'), known).empty());
    CHECK(did_you_mean("statsu", known) == "; did you mean \"status\"?");
    CHECK(did_you_mean("kamailio", known).empty());
}

TEST_CASE("JOURNAL_STREAM counts only when the descriptor is that very stream: device and inode") {
    std::FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    const int fd = fileno(file);
    struct stat found {};
    REQUIRE(fstat(fd, &found) == 0);
    const auto text = [](unsigned long long device, unsigned long long inode) {
        return std::to_string(device) + ":" + std::to_string(inode);
    };
    CHECK(is_journal_stream(text(found.st_dev, found.st_ino).c_str(), fd));
    CHECK_FALSE(is_journal_stream(text(found.st_dev, found.st_ino + 1).c_str(), fd));
    CHECK_FALSE(is_journal_stream(text(found.st_dev + 1, found.st_ino).c_str(), fd));
    for (const char* wrong : {"", "1", ":", "1:", "x:y", "1:2x"}) CHECK_FALSE(is_journal_stream(wrong, fd));
    CHECK_FALSE(is_journal_stream(nullptr, fd));
    CHECK_FALSE(is_journal_stream(text(found.st_dev, found.st_ino).c_str(), -1));
    std::fclose(file);
}
