// Who gives way when there is no room for one more TLS handshake.
#include "daemon/tls/handshakes.h"

#include <doctest/doctest.h>

#include <vector>

using namespace gmgate;
using daemon::Handshakes;

namespace {

struct Door {
    explicit Door(daemon::HandshakeLimits limits)
        : handshakes(limits, [this](int socket) { ended.push_back(socket); }) {}
    bool comes(const std::string& from, int socket, bool is_known = false) {
        const auto place = handshakes.begin(*Address::parse(from), socket, is_known);
        if (place) places.push_back(*place);
        return place.has_value();
    }
    /// What ended is given back, as in the next turn of the loop.
    void turn() {
        std::erase_if(places, [&](const auto& place) {
            if (place->gave_way) handshakes.end(place);
            else return false;
            return true;
        });
    }
    std::vector<int> ended;
    Handshakes handshakes;
    std::vector<Handshakes::Place> places;
};

}  // namespace

TEST_CASE("TLS handshakes: beyond the limit of a source its own oldest gives way, an IPv6 /64 being one source") {
    Door door({.total = 100, .per_source = 2});
    CHECK(door.comes("192.0.2.1", 1));
    CHECK(door.comes("2001:db8::1", 2));
    CHECK(door.comes("2001:db8::2", 3));
    CHECK(door.ended.empty());
    CHECK(door.comes("2001:db8::3", 4));
    CHECK(door.ended == std::vector{2});
    CHECK(door.comes("2001:db8:0:1::3", 5));
    CHECK(door.ended == std::vector{2});
    CHECK(door.handshakes.count() == 4);
    door.turn();
    CHECK(door.handshakes.count() == 4);
    CHECK(door.comes("2001:db8::4", 6));
    CHECK(door.ended == std::vector{2, 3});
}

TEST_CASE("TLS handshakes: beyond the limit in total the oldest of the source that has most gives way") {
    Door door({.total = 4, .per_source = 3});
    CHECK(door.comes("192.0.2.1", 1));  // the oldest of all, alone at its address
    for (int socket = 2; socket <= 4; ++socket) CHECK(door.comes("192.0.2.66", socket));
    CHECK(door.comes("192.0.2.7", 5));
    CHECK(door.ended == std::vector{2});
    CHECK(door.handshakes.count() == 4);
}

TEST_CASE("TLS handshakes: those of addresses where somebody is registered give way only to one another") {
    Door door({.total = 2, .per_source = 2});
    CHECK(door.comes("192.0.2.1", 1, true));
    CHECK(door.comes("192.0.2.2", 2, false));
    CHECK(door.comes("192.0.2.3", 3, true));
    CHECK(door.ended == std::vector{2});
    CHECK_FALSE(door.comes("192.0.2.4", 4, false));
    CHECK(std::string(door.handshakes.limit_met()) == "tls-handshakes");
    CHECK(door.comes("192.0.2.5", 5, true));
    CHECK(door.ended == std::vector{2, 1});
}

TEST_CASE("TLS handshakes: those that gave way and have not ended yet are bounded, too") {
    Door door({.total = 4, .per_source = 4});
    int begun = 0;
    for (int socket = 1; socket <= 100; ++socket) begun += door.comes("192.0.2.66", socket) ? 1 : 0;
    CHECK(begun == 8);
    door.turn();
    CHECK(door.comes("192.0.2.1", 101));
    for (const auto place : door.places) door.handshakes.end(place);
    CHECK(door.handshakes.count() == 0);
}
