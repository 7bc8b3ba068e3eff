// Ranges of addresses as operators write them.
#include "base/address_range.h"

#include <doctest/doctest.h>

using gmgate::Address;
using gmgate::AddressRange;

namespace {

bool holds(const char* range, const char* address) {
    const auto parsed = AddressRange::parse(range);
    REQUIRE_MESSAGE(parsed.has_value(), range);
    return parsed->contains(*Address::parse(address));
}

}  // namespace

TEST_CASE("address ranges: whole octets, broken ones, one address, all of a family; never of the other family") {
    CHECK(holds("10.2.0.0/16", "10.2.255.255"));
    CHECK_FALSE(holds("10.2.0.0/16", "10.3.0.0"));
    CHECK(holds("10.2.0.0/15", "10.3.0.1"));
    CHECK_FALSE(holds("10.2.0.0/15", "10.4.0.0"));
    CHECK(holds("10.2.0.9", "10.2.0.9"));
    CHECK_FALSE(holds("10.2.0.9", "10.2.0.8"));
    CHECK(holds("10.2.0.9/32", "::ffff:10.2.0.9"));
    CHECK(holds("2001:db8::/33", "2001:db8:7fff::1"));
    CHECK_FALSE(holds("2001:db8::/33", "2001:db8:8000::1"));
    CHECK(holds("[2001:db8::5]", "2001:db8::5"));
    CHECK(holds("0.0.0.0/0", "198.51.100.1"));
    CHECK_FALSE(holds("0.0.0.0/0", "2001:db8::1"));
    CHECK(holds("::/0", "2001:db8::1"));
    CHECK_FALSE(holds("::/0", "198.51.100.1"));
    CHECK(AddressRange::parse("10.2.0.0/16")->to_string() == "10.2.0.0/16");
}

TEST_CASE("address ranges: what is not exactly one is none") {
    for (const char* text :
         {"", "/", "10.2.0.0/", "10.2.0.0/33", "10.2.0.5/16", "10.2.0.0/-1", "10.2.0.0/16 ", "10.2.0/16",
          "10.2.0.0/016x", "2001:db8::/129", "2001:db8::1/64", "core.example", "10.2.0.1:5060"})
        CHECK_MESSAGE(!AddressRange::parse(text).has_value(), text);
}
