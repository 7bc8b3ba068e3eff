// Octets drawn ahead of their use: none is ever given out twice, not even on the two sides of a fork.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <set>

#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"

using namespace gmgate;

TEST_CASE("random: tokens have the length asked for and never come twice") {
    std::set<std::string> seen;
    for (int i = 0; i < 2000; ++i) CHECK(seen.insert(random_hex(16)).second);
    for (const std::size_t bytes : {0UZ, 1UZ, 63UZ, 64UZ, 65UZ, 1024UZ, 5000UZ})
        CHECK(random_hex(bytes).size() == 2 * bytes);
}

TEST_CASE("random: a child does not give out what its parent had drawn ahead") {
    (void)random_u64();  // the parent has octets ahead
    std::array<int, 2> ends{};
    REQUIRE(pipe(ends.data()) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const std::string theirs = random_hex(32);
        _exit(write(ends[1], theirs.data(), theirs.size()) == 64 ? 0 : 1);
    }
    std::string theirs(64, ' ');
    CHECK(read(ends[0], theirs.data(), theirs.size()) == 64);
    CHECK(theirs != random_hex(32));
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    close(ends[0]);
    close(ends[1]);
}
