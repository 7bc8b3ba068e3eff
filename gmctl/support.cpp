#include "gmctl/support.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>

#include <fmt/format.h>

namespace gmgate::gmctl {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLongDigits = 10, kLongHex = 32;
constexpr std::size_t kTarBlock = 512;

constexpr const char* kAbout =
    "Made by gmctl support for a bug report about gmgate.\n"
    "\n"
    "In it: versions of gmgate, kernel and distribution; the configuration without comments; status, next hops,\n"
    "statistics of agreements, guard policies and the kernel's counters; how often each id stands in the log.\n"
    "Not in it: identities of phones (IMSI, IMPI, IMPU, telephone numbers), their addresses, messages, lines of the log,\n"
    "keys, secrets, certificates, the name of this machine.\n"
    "The addresses of this machine and of the next hops, and names in the configuration, are in it. Look into the files\n"
    "before you send them: they are plain text.\n";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
bool is_user(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("._-+%!~*'&=$,;?/").contains(c);
}

std::size_t run_of(std::string_view text, std::size_t at, bool (*wanted)(char)) {
    auto end = at;
    while (end < text.size() && wanted(text[end])) ++end;
    return end - at;
}

// What stands before an @, back to the colon, blank, quote or bracket in front of it.
std::string without_users(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '@') {
            auto begin = out.size();
            while (begin > 0 && is_user(out[begin - 1])) --begin;
            if (begin < out.size()) out.replace(begin, std::string::npos, "<user>");
        }
        out += c;
    }
    return out;
}

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return file ? std::string{std::istreambuf_iterator<char>(file), {}} : std::string{};
}

std::string read_journal() {
    struct Close {
        void operator()(std::FILE* file) const { pclose(file); }
    };
    const std::unique_ptr<std::FILE, Close> journal(
        popen("journalctl --unit gmgated --lines 50000 --output cat --no-pager 2>/dev/null", "r"));
    std::string text;
    std::array<char, 65536> part;
    while (journal) {
        const auto size = std::fread(part.data(), 1, part.size(), journal.get());
        if (size == 0) break;
        text.append(part.data(), size);
    }
    return text;
}

std::string value_in(const std::string& text, std::string_view key) {
    const auto at = text.find(key);
    if (at == std::string::npos) return "?";
    return text.substr(at + key.size(), text.find('\n', at) - at - key.size());
}

// Without the machine's own name.
std::string versions(const Json& status) {
    utsname system{};
    uname(&system);
    auto text = fmt::format("gmctl {}\ngmgated {}\nkernel {} {} {} {}\ndistribution {}\nmemory {}\n", GMGATE_VERSION,
                            status.value("version", std::string("does not answer")), system.sysname, system.release,
                            system.version, system.machine, value_in(read_file("/etc/os-release"), "PRETTY_NAME="),
                            value_in(read_file("/proc/meminfo"), "MemTotal:"));
    std::ifstream modules("/proc/modules");
    std::string line;
    while (std::getline(modules, line)) {
        const auto name = line.substr(0, line.find(' '));
        for (const std::string_view begin : {"esp", "xfrm", "tls", "authenc", "echainiv", "seqiv", "gcm", "ccm"})
            if (name.starts_with(begin)) text += "module " + name + '\n';
    }
    return text;
}

// The id of a line: "register impi=…", "<5>register …", or with a time and a level in front.
std::string_view id_of(std::string_view line) {
    if (line.starts_with('<') && line.size() > 3 && line[2] == '>') line.remove_prefix(3);
    const auto word = [&line] {
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        const auto first = line.substr(0, line.find(' '));
        line.remove_prefix(first.size());
        return first;
    };
    auto first = word();
    if (!first.empty() && is_digit(first[0])) {  // a time, then the level
        word();
        first = word();
    }
    const auto is_of_id = [](char c) { return (c >= 'a' && c <= 'z') || c == '-' || is_digit(c); };
    return !first.empty() && std::ranges::all_of(first, is_of_id) ? first : std::string_view{};
}

std::string octal(std::uint64_t value, std::size_t digits) { return fmt::format("{:0{}o}", value, digits); }

std::string padded(std::string text) {
    text.resize((text.size() + kTarBlock - 1) / kTarBlock * kTarBlock, '\0');
    return text;
}

std::string tar_header(const SupportFile& file, std::uint64_t seconds) {
    std::string header(kTarBlock, '\0');
    const auto put = [&](std::size_t at, std::string_view text) { header.replace(at, text.size(), text); };
    put(0, file.name.substr(0, 99));
    put(100, octal(0600, 7));
    put(108, octal(0, 7));
    put(116, octal(0, 7));
    put(124, octal(file.bytes.size(), 11));
    put(136, octal(seconds, 11));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    std::uint64_t sum = 0;
    for (const char c : header) sum += static_cast<unsigned char>(c);
    put(148, octal(sum, 6) + std::string("\0 ", 2));
    return header;
}

}  // namespace

std::string redacted(std::string_view whole) {
    const auto text = without_users(whole);
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const bool is_number_begun = at > 0 && is_hex(text[at - 1]);
        const auto digits = run_of(text, at, is_digit), hexadecimal = run_of(text, at, is_hex);
        if (std::string_view(text).substr(at).starts_with("tel:")) {
            at += 4;
            at += run_of(text, at, [](char c) { return is_digit(c) || std::string_view("+-.()#*").contains(c); });
            out += "tel:<digits>";
        } else if (!is_number_begun && hexadecimal >= kLongHex) {
            out += "<hex>";
            at += hexadecimal;
        } else if (digits >= kLongDigits) {
            out += "<digits>";
            at += digits;
        } else {
            const auto step = std::max<std::size_t>(digits, 1);
            out.append(text, at, step);
            at += step;
        }
    }
    return out;
}

nlohmann::json redacted(const nlohmann::json& value) {
    if (value.is_string()) return redacted(std::string_view(value.get_ref<const std::string&>()));
    if (value.is_array()) {
        auto out = Json::array();
        for (const auto& one : value) out.push_back(redacted(one));
        return out;
    }
    if (!value.is_object()) return value;
    auto out = Json::object();
    for (const auto& [key, one] : value.items()) out[redacted(std::string_view(key))] = redacted(one);
    return out;
}

std::string redacted_config(std::string_view toml) {
    std::string out;
    char quote = 0;
    bool is_comment = false;
    for (const char c : toml) {
        if (c == '\n') {
            while (!out.empty() && (out.back() == ' ' || out.back() == '\t')) out.pop_back();
            if (!out.empty() && out.back() != '\n') out += '\n';
            is_comment = false;
            quote = 0;
        } else if (!is_comment) {
            if (quote != 0) quote = c == quote ? '\0' : quote;
            else if (c == '"' || c == '\'') quote = c;
            else is_comment = c == '#';
            if (!is_comment) out += c;
        }
    }
    return redacted(std::string_view(out));
}

std::string log_ids(std::string_view log) {
    std::map<std::string, std::size_t, std::less<>> counts;
    while (!log.empty()) {
        const auto end = std::min(log.find('\n'), log.size());
        if (const auto id = id_of(log.substr(0, end)); !id.empty()) ++counts[std::string(id)];
        log.remove_prefix(std::min(end + 1, log.size()));
    }
    std::vector<std::pair<std::string, std::size_t>> sorted(counts.begin(), counts.end());
    std::ranges::stable_sort(sorted, std::greater{}, &std::pair<std::string, std::size_t>::second);
    std::string out;
    for (const auto& [id, count] : sorted) out += fmt::format("{} {}\n", id, count);
    return out;
}

std::string tar_archive(const std::vector<SupportFile>& files, std::uint64_t seconds) {
    std::string out;
    for (const auto& file : files) out += tar_header(file, seconds) + padded(file.bytes);
    return out + std::string(2 * kTarBlock, '\0');
}

std::vector<SupportFile> support_files(const SupportSources& sources) {
    std::vector<SupportFile> files{{"ABOUT", kAbout}};
    Json status = Json::object();
    for (const auto* command : {"status", "core", "sa-stats", "kernel", "rates"}) {
        const auto answer = sources.ask(command);
        const auto told =
            answer ? redacted(*answer) : Json{{"not_told", redacted(std::string_view(answer.error().text))}};
        if (answer && std::string_view(command) == "status") status = *answer;
        files.push_back(
            {fmt::format("{}.json", command), told.dump(2, ' ', false, Json::error_handler_t::replace) + '\n'});
    }
    const auto path =
        !sources.config.empty() ? sources.config : status.value("config", std::string("/etc/gmgate/gmgate.toml"));
    const auto config = read_file(path);
    files.push_back(
        {"gmgate.toml", config.empty() ? "# cannot be read by who ran gmctl support\n" : redacted_config(config)});
    const auto ids = log_ids(sources.log.empty() ? read_journal() : read_file(sources.log));
    files.push_back({"log-ids", ids.empty() ? "no log of gmgated can be read by who ran gmctl support\n" : ids});
    files.push_back({"versions", versions(status)});
    return files;
}

}  // namespace gmgate::gmctl
