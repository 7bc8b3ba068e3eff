// gmctl support: what is in the archive, and that nothing else is.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "gmctl/support.h"

using namespace gmgate;
using namespace gmgate::gmctl;
using Json = nlohmann::json;

TEST_CASE("What names a person or opens anything goes, what a report needs stays") {
    const auto is = [](std::string_view text, std::string_view wanted) { CHECK(redacted(text) == wanted); };
    is("sip:001010000000001@ims.example", "sip:<user>@ims.example");
    is("<sip:alice.b+c%20@ims.example;user=phone>", "<sip:<user>@ims.example;user=phone>");
    is("\"001010000000001@ims.mnc001.mcc001.3gppnetwork.org\"", "\"<user>@ims.mnc001.mcc001.3gppnetwork.org\"");
    is("tel:+49-30-1234 called", "tel:<digits> called");
    is("IMSI 001010000000001, IMEI 35693803564380", "IMSI <digits>, IMEI <digits>");
    is("key 0123456789abcdef0123456789ABCDEF.", "key <hex>.");
    is("nonce=\"00112233445566778899aabbccddeeff00112233\"", "nonce=\"<hex>\"");
    is("10.1.0.1:6100 [fd01::1]:5060 0x10000000 21321 2026-11-28T09:18:50.123Z",
       "10.1.0.1:6100 [fd01::1]:5060 0x10000000 21321 2026-11-28T09:18:50.123Z");
    is("a@b@c", "<user>@<user>@c");
    is("", "");
    const Json value{{"001010000000001@x", {"sip:1@y", 12345678901234, true, nullptr}}};
    CHECK(redacted(value) == Json{{"<user>@x", {"sip:<user>@y", 12345678901234, true, nullptr}}});
}

TEST_CASE("A configuration loses its comments and nothing else") {
    CHECK(redacted_config(
              "# the edge of Mr. X, 0123456789\n\n[core]   # here\nnext-hop = \"a#b\" # why\nx = 'it''s # no'\n") ==
          "[core]\nnext-hop = \"a#b\"\nx = 'it''s # no'\n");
}

TEST_CASE("Of a log the ids are counted, in all three forms of a line, and no value is told") {
    CHECK(log_ids("register impi=001010000000001@x answer=200\n<5>register impi=2\n"
                  "2026-11-28T09:18:50.123 notice  next-hop-down next-hop=10.2.0.2:5060\n"
                  "2026-11-28T09:18:50.124 info    register impi=3\n"
                  "not an id: 001010000000001\nSomebody=1\n\n") == "register 3\nnext-hop-down 1\nnot 1\n");
}

TEST_CASE("The archive has everything, also when nobody answers, and tar reads it") {
    SupportSources sources;
    char folder[] = "/tmp/gm_support.XXXXXX";
    REQUIRE(mkdtemp(folder));
    const std::string place = folder;
    std::ofstream(place + "/gmgate.toml")
        << "[core] # secret 00112233445566778899aabbccddeeff\nlisten = \"10.2.0.1:5060\"\n";
    std::ofstream(place + "/log") << "register impi=001010000000001@ims\n";
    sources.log = place + "/log";
    sources.config = place + "/gmgate.toml";
    sources.ask = [](const std::string& command) -> Result<Json> {
        if (command == "core") return failure(Reaction::broken, "nobody answers 001010000000001@ims");
        return Json{{"version", "1.2.3"}, {"seen", "sip:001010000000001@ims"}};
    };
    const auto files = support_files(sources);
    const auto archive = tar_archive(files, 1'700'000'000);
    for (const auto* secret : {"00101000", "00112233", "# secret", "secret 0"})
        CHECK(archive.find(secret) == std::string::npos);
    for (const auto* wanted :
         {"gmgated 1.2.3", "kernel Linux", "register 1\n", "listen = \"10.2.0.1:5060\"", "not_told"})
        CHECK_MESSAGE(archive.find(wanted) != std::string::npos, wanted);
    CHECK(archive.size() % 512 == 0);
    std::ofstream(place + "/a.tar", std::ios::binary) << archive;
    const auto command = "cd " + place + " && tar -xf a.tar --one-top-level=out && ls out | wc -l >count";
    CHECK(std::system(command.c_str()) == 0);
    std::size_t count = 0;
    std::ifstream(place + "/count") >> count;
    CHECK(count == files.size());
    for (const auto& file : files) {
        std::ifstream unpacked(place + "/out/" + file.name, std::ios::binary);
        CHECK(std::string{std::istreambuf_iterator<char>(unpacked), {}} == file.bytes);
    }
    std::filesystem::remove_all(place);
}
