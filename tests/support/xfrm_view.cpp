#include "tests/support/xfrm_view.h"

#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "tests/support/process.h"

namespace gmgate::test {

namespace {

std::uint64_t number(std::string_view text) {
    const bool is_hex = text.starts_with("0x");
    if (is_hex) text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, is_hex ? 16 : 10);
    if (error != std::errc{})
        throw std::runtime_error("ip xfrm printed \"" + std::string(text) + "\" where a number belongs");
    return value;
}

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream in(line);
    std::vector<std::string> words;
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

/// The word that follows `key`.
std::optional<std::string> after(const std::vector<std::string>& words, std::string_view key) {
    for (std::size_t i = 0; i + 1 < words.size(); ++i)
        if (words[i] == key) return words[i + 1];
    return std::nullopt;
}

void parse_line(KernelSa& sa, const std::vector<std::string>& words, bool& in_current) {
    const auto& first = words.front();
    if (first == "proto") {
        sa.spi = static_cast<std::uint32_t>(number(after(words, "spi").value_or("")));
        sa.reqid = static_cast<std::uint32_t>(number(after(words, "reqid").value_or("0")));
        sa.mode = after(words, "mode").value_or("");
    } else if (first == "auth-trunc" || first == "auth") {
        sa.auth = words.at(1);
    } else if (first == "enc") {
        sa.crypt = words.at(1);
    } else if (first == "aead") {
        sa.aead = words.at(1);
    } else if (first == "output-mark") {
        const auto slash = words.at(1).find('/');
        const auto value = static_cast<std::uint32_t>(number(words.at(1).substr(0, slash)));
        const auto mask =
            slash == std::string::npos ? 0xffffffff : static_cast<std::uint32_t>(number(words.at(1).substr(slash + 1)));
        sa.mark =
            value & mask;  // with mask 0 nothing is set: libcharon's engine keeps the set's mark of outbound SAs so
    } else if (first == "sel") {
        sa.source_port = static_cast<std::uint16_t>(number(after(words, "sport").value_or("0")));
        sa.destination_port = static_cast<std::uint16_t>(number(after(words, "dport").value_or("0")));
    } else if (first == "expire" && words.size() > 1 && words[1] == "add:") {
        const auto hard = after(words, "hard").value_or("0");
        sa.hard_seconds = hard.starts_with('(') ? 0 : number(hard);  // "(INF)(sec)"
    } else if (first == "stats:") {
        sa.replays = number(after(words, "replay").value_or("0"));
        sa.integrity_failures = number(after(words, "failed").value_or("0"));
    } else if (first == "lifetime") {
        in_current = words.size() > 1 && words[1] == "current:";
    } else if (in_current && first.find("(bytes)") != std::string::npos) {
        sa.bytes = number(first);
        sa.packets = number(words.at(1));
    }
}

}  // namespace

std::vector<KernelSa> parse_sas(std::string_view printed) {
    std::vector<KernelSa> sas;
    std::istringstream in{std::string(printed)};
    bool in_current = false;
    for (std::string line; std::getline(in, line);) {
        const auto words = words_of(line);
        if (words.empty()) continue;
        if (line.starts_with("src ")) {
            sas.push_back({.source = words.at(1), .destination = words.at(3)});
            in_current = false;
        } else if (!sas.empty()) {
            parse_line(sas.back(), words, in_current);
        }
    }
    return sas;
}

std::vector<KernelSa> list_sas(const Namespace& network) {
    // With keys hidden: what a test prints on failure must not contain any.
    return parse_sas(run_program({.command = {"ip", "-s", "xfrm", "state", "list", "nokeys"}, .network = &network}));
}

std::size_t count_sas(const Namespace& network) {
    const auto words = words_of(run_program({.command = {"ip", "xfrm", "state", "count"}, .network = &network}));
    return number(after(words, "count").value_or(""));
}

std::vector<std::string> list_policies(const Namespace& network) {
    std::istringstream in{run_program({.command = {"ip", "xfrm", "policy", "list", "nosock"}, .network = &network})};
    std::vector<std::string> policies;
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with("src ")) policies.emplace_back();
        if (!policies.empty()) policies.back().append(line).push_back('\n');
    }
    return policies;
}

std::map<std::string, std::uint64_t> xfrm_counters(const Namespace& network) {
    std::map<std::string, std::uint64_t> counters;
    network.enter([&] {
        std::ifstream file("/proc/thread-self/net/xfrm_stat");
        std::string name;
        for (std::uint64_t value = 0; file >> name >> value;) counters[name] = value;
    });
    if (counters.empty())
        throw std::runtime_error("/proc/net/xfrm_stat is missing: the kernel lacks CONFIG_XFRM_STATISTICS");
    return counters;
}

}  // namespace gmgate::test
