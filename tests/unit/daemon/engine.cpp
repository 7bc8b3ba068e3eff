// What the engine in a process of its own is told: exactly what the configuration protects.
#include <doctest/doctest.h>

#include "daemon/engine.h"
#include "xfrm/engine/rules.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

constexpr const char* kFile = R"([core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"
visited-network-id = "visited.example"
[[ims-aka-profile]]
name = "volte"
protected-server-port = [6100, 6110]
start-protected-client-port = 6200
end-protected-client-port = 6203
[[sip-interface]]
realm-id = "access"
sec-agree-feature = "enabled"
sec-agree-pref = "ipsec3gpp"
[[sip-interface.sip-ports]]
address = "10.1.0.1"
ims-aka-profile = "volte"
[[sip-interface.sip-ports]]
address = "10.1.0.9"
[xfrm]
reqid = 77
spi-start = 0x20000000
spi-end = 0x20ffffff
mark-mask = 0x0000ffff
)";

}  // namespace

TEST_CASE("the engine's configuration has our reqid, mask, SPIs and the protected ports, and no other address") {
    const auto config = parse_config(kFile, "test.toml");
    REQUIRE(config);
    CHECK(config->xfrm.sa_engine == SaEngine::process);
    const auto told = engine_configuration(*config);
    CHECK(told.owner.reqid == ReqId{77});
    CHECK(told.owner.mark_mask == 0xffff);
    CHECK(told.spi_first == Spi{0x20000000});
    CHECK(told.spi_last == Spi{0x20ffffff});
    CHECK(told.sa_limit >= 4 * (2 * config->limits.registrations + config->limits.challenges));
    const xfrm::EngineRules rules(told);
    const auto ours = *Address::parse("10.1.0.1");
    for (const auto port : config->ims_aka_profiles[0].all_ports()) CHECK(rules.check_guards({ours, {port}}));
    for (const int port : {6101, 6109, 6199, 6204, 5060})
        CHECK_FALSE(rules.check_guards({ours, {Port{static_cast<std::uint16_t>(port)}}}));
    for (const char* other : {"10.1.0.9", "10.2.0.1"})
        CHECK_FALSE(rules.check_guards({*Address::parse(other), {Port{6100}}}));
}

TEST_CASE("sa-engine has three words, and a fourth is a mistake") {
    const auto engine = [](const std::string& word) {
        return parse_config(kFile + ("sa-engine = \"" + word + "\"\n"), "test.toml");
    };
    CHECK(engine("process")->xfrm.sa_engine == SaEngine::process);
    CHECK(engine("in-process")->xfrm.sa_engine == SaEngine::in_process);
    CHECK(engine("libcharon")->xfrm.sa_engine == SaEngine::libcharon);
    CHECK_FALSE(engine("magic").has_value());
}
