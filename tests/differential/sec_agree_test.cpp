// The sec-agree parser against a second implementation. Both read the same lists; they must agree on what is a list and
// on what it says, but for the differences in the table of differences.cpp.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <regex>
#include <sstream>

#include "sip/message/message.h"
#include "sip/message/sec_agree.h"
#include "tests/differential/differences.h"
#include "tests/differential/lists.h"

using namespace gmgate;
using namespace gmgate::differential;

namespace {

constexpr std::uint64_t kSeed = 20261123;
constexpr int kGenerated = 6000;
constexpr int kMutated = 6000;

/// What happened to the lists, for the table that a run prints.
struct Tally {
    int both_accept = 0, both_refuse = 0;
    int blank_line = 0;  ///< only gmgate accepts, see without_blank_lines
    std::map<std::string, int> differing;
};

std::string visible(const std::string& text) {
    std::ostringstream out;
    for (const char c : text) {
        if (c >= ' ' && c <= '~') out << c;
        else
            out << "\\x" << std::hex << (static_cast<unsigned char>(c) < 16 ? "0" : "")
                << static_cast<unsigned>(static_cast<unsigned char>(c)) << std::dec;
    }
    return out.str().substr(0, 400);
}

/// The one thing that only gmgate accepts: white space folded twice, with a line of blanks between. RFC 3261 §25.1: LWS
/// has one CRLF, and sofia-sip takes no more; gmgate takes any run of folds and blanks for a separator, as RFC 5322
/// §4.2 (obs-FWS) has it. The lists must be read alike once such lines are gone.
std::string without_blank_lines(const std::string& list) {
    static const std::regex kBlankLine("\r\n[ \t]+(?=\r\n[ \t])");
    return std::regex_replace(list, kBlankLine, "");
}

/// Why the two readings of a list are not the same; "" when they are.
std::string disagreement(const sip::SecurityList& ours, const std::vector<Entry>& theirs) {
    if (ours.mechanisms().size() != theirs.size()) return "number of entries";
    for (std::size_t i = 0; i < theirs.size(); ++i) {
        const sip::Mechanism& mechanism = ours.mechanisms()[i];
        const Entry& entry = theirs[i];
        const std::string where = "entry " + std::to_string(i + 1) + ": ";
        if (mechanism.name != entry.name) return where + "name";
        if (mechanism.parameters.size() != entry.parameters.size()) return where + "number of parameters";
        for (std::size_t k = 0; k < entry.parameters.size(); ++k) {
            const sip::MechanismParameter& p = mechanism.parameters[k];
            const Parameter& q = entry.parameters[k];
            if (p.name != q.name || p.value != q.value || p.has_value != q.has_value)
                return where + "parameter " + q.name;
        }
        if (mechanism.q.has_value() != entry.q.has_value()) return where + "presence of q";
        if (entry.q && std::lround(std::strtod(entry.q->c_str(), nullptr) * 1000) != *mechanism.q)
            return where + "value of q";
        const auto typed = mechanism.ipsec_3gpp();
        if (typed.has_value() != equal_names(entry.name, "ipsec-3gpp")) return where + "being ipsec-3gpp";
        const auto differs = [&entry](const char* name, const auto& number) {
            const auto values = entry.values(name);
            return number.has_value() == values.empty() || (number && number->value != std::stoull(values.front()));
        };
        if (typed && differs("spi-c", typed->spi_c)) return where + "spi-c";
        if (typed && differs("spi-s", typed->spi_s)) return where + "spi-s";
        if (typed && differs("port-c", typed->port_c)) return where + "port-c";
        if (typed && differs("port-s", typed->port_s)) return where + "port-s";
    }
    return "";
}

void compare(const std::string& list, Tally& tally) {
    auto theirs = read_with_sofia(list);
    const auto ours = sip::SecurityList::parse(list);
    const auto verdict = [&] { return ours ? "gmgate accepts" : "gmgate: " + ours.error().text; };
    if (!theirs && ours && (theirs = read_with_sofia(without_blank_lines(list)))) ++tally.blank_line;
    if (!theirs) {
        // Nothing else that sofia-sip refuses may be accepted.
        if (ours) FAIL_CHECK("only gmgate accepts: " << visible(list));
        ++tally.both_refuse;
        return;
    }
    bool is_explained = false;
    for (const Difference& difference : differences()) {
        if (!difference.holds(list, *theirs)) continue;
        is_explained = true;
        ++tally.differing[difference.name];
    }
    if (ours.has_value() == is_explained)
        FAIL_CHECK("sofia-sip accepts, by the table gmgate must " << (is_explained ? "refuse" : "accept") << ", "
                                                                  << verdict() << ": " << visible(list));
    if (!ours) return;
    ++tally.both_accept;
    const std::string what = disagreement(*ours, *theirs);
    if (!what.empty()) FAIL_CHECK("read differently, " << what << ": " << visible(list));
    if (sip::count_mechanisms(list) != theirs->size()) FAIL_CHECK("counted differently: " << visible(list));
}

void show(const char* title, const Tally& tally) {
    std::ostringstream out;
    out << title << ": both accept and read the same " << tally.both_accept << ", both refuse " << tally.both_refuse
        << "\n";
    for (const Difference& difference : differences()) {
        const auto found = tally.differing.find(difference.name);
        out << "  only sofia-sip accepts, " << difference.name << ": "
            << (found == tally.differing.end() ? 0 : found->second) << "  (" << difference.why << ")\n";
    }
    out << "  only gmgate accepts, white space folded twice: " << tally.blank_line << "\n";
    MESSAGE(out.str());
}

}  // namespace

TEST_CASE(
    "A-1: gmgate and sofia-sip read the lists of phones and specifications alike, but for the explained differences") {
    Tally tally;
    for (const std::string& list : known_lists()) compare(list, tally);
    show("known lists", tally);
    CHECK(tally.both_accept > 60);
    CHECK(tally.both_refuse > 20);
    // A row that explains nothing any more must go.
    for (const Difference& difference : differences())
        CHECK_MESSAGE(tally.differing.contains(difference.name), difference.name);
}

TEST_CASE("A-1: gmgate and sofia-sip read generated lists alike, but for the explained differences") {
    ListMaker maker(kSeed);
    Tally tally;
    for (int i = 0; i < kGenerated; ++i) compare(maker.generate(), tally);
    show("generated lists", tally);
    CHECK(tally.both_accept > kGenerated / 3);
}

TEST_CASE("A-1: gmgate and sofia-sip read damaged lists alike, but for the explained differences") {
    ListMaker maker(kSeed + 1);
    const std::vector<std::string> known = known_lists();
    Tally tally;
    for (int i = 0; i < kMutated; ++i)
        compare(maker.mutate(i % 2 ? known[static_cast<std::size_t>(i / 2) % known.size()] : maker.generate()), tally);
    show("damaged lists", tally);
    CHECK(tally.both_accept > kMutated / 20);
    CHECK(tally.both_refuse > kMutated / 20);
}

TEST_CASE("A-4: gmgate and sofia-sip join several header fields into the same list") {
    int compared = 0;
    for (const std::string& list : known_lists()) {
        const auto whole = sip::SecurityList::parse(list);
        if (!whole || without_blank_lines(list) != list) continue;
        // Two entries in the first field, the others one by one, an unrelated field between them.
        std::string fields;
        const auto pieces = comma_pieces(list);
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            if (i == 1) fields += ", " + pieces[i] + "\r\nSubject: between\r\n";
            else fields += "Security-Client: " + pieces[i] + (i == 0 && pieces.size() > 1 ? "" : "\r\n");
        }
        const std::string bytes =
            "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@a>;tag=1\r\n"
            "To: <sip:a@a>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\n" +
            fields + "Content-Length: 0\r\n\r\n";
        const auto message = sip::Message::parse(bytes);
        REQUIRE(message);
        const auto ours = sip::SecurityList::from(*message, sip::HeaderId::security_client);
        const auto theirs = read_message_with_sofia(bytes);
        REQUIRE_MESSAGE(ours, visible(fields));
        REQUIRE_MESSAGE(theirs, visible(fields));
        CHECK_MESSAGE(disagreement(*ours, *theirs).empty(), visible(fields));
        CHECK_FALSE(sip::difference(*whole, *ours));
        ++compared;
    }
    CHECK(compared > 60);
}
