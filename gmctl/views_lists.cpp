// Lists of phones and of the core's elements, and numbers as operators know them: declared in views.h.
#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "gmctl/table.h"
#include "gmctl/views.h"

namespace gmgate::gmctl {

using Json = nlohmann::json;

namespace {

/// A column of `registrations`.
struct Field {
    Column column;
    std::function<std::string(const Json&)> of;
};

std::string domain_of(const std::string& impi) {
    const auto at = impi.find('@');
    return at == std::string::npos ? "" : impi.substr(at);
}

/// What all rows have, "" when they differ or have nothing.
std::string common(const Json& rows, const std::function<std::string(const Json&)>& of) {
    const auto first = rows.empty() ? "" : of(rows.front());
    for (const auto& row : rows)
        if (of(row) != first) return {};
    return first;
}

std::vector<Field> registration_fields(const std::string& domain) {
    const auto field = [](const char* key) { return [key](const Json& row) { return text_of(row, key); }; };
    return {{{"IMPI"},
             [domain](const Json& row) {
                 const auto impi = text_of(row, "impi");
                 return impi.substr(0, impi.size() - domain.size());
             }},
            {{"UE", false, true, true}, field("ue")},
            {{"mechanism"},
             [](const Json& row) { return row.value("ended", false) ? "(ending)" : text_of(row, "mechanism"); }},
            {{"algorithms", false, true}, field("algorithms")},
            {{"transport"}, field("transport")},
            {{"sets", true}, field("sets")},
            {{"expires in", true}, [](const Json& row) { return duration_text(number_of(row, "expires_in")); }},
            {{"realm", false, true}, field("realm")}};
}

std::string milliseconds_text(const Json& hop, const char* key) {
    const auto at = hop.find(key);
    return at == hop.end() || !at->is_number() ? "" : fmt::format("{:.1f} ms", at->get<double>());
}

// Below an element: what its name was looked up to, and its last trouble; empty when there is neither.
std::string detail_of(const Json& hop, std::size_t width) {
    const auto address = text_of(hop, "address"), reason = text_of(hop, "reason");
    auto line = address == text_of(hop, "hop") ? "" : address;
    if (!reason.empty()) line += (line.empty() ? "last trouble: " : ", last trouble: ") + reason;
    if (line.empty()) return line;
    line = "  " + printable(line);
    if (width != 0 && line.size() > width) line = line.substr(0, width - 1) + "…";
    return line + '\n';
}

void add_tally(TextTable& table, const std::string& first, const std::string& what, const Json& tally) {
    table.add({first, what, text_of(tally, "period"), text_of(tally, "lifetime"), text_of(tally, "most_in_a_period")});
}

}  // namespace

std::string registrations_view(const Json& page, std::size_t width) {
    const auto& rows = part(page, "registrations");
    const bool names_once = width != 0 && rows.size() > 1;
    const auto domain =
        names_once ? common(rows, [](const Json& row) { return domain_of(text_of(row, "impi")); }) : std::string{};
    auto fields = registration_fields(domain);
    std::string same = domain;
    if (names_once)
        std::erase_if(fields, [&](const Field& field) {
            const auto& title = field.column.title;
            if (title == "IMPI" || title == "UE" || title == "expires in") return false;
            const auto word = common(rows, field.of);
            if (word.empty()) return false;
            same += (same.empty() ? "" : ", ") + (title == "sets" ? word + (word == "1" ? " set" : " sets") : word);
            return true;
        });
    std::vector<Column> columns;
    for (const auto& field : fields) columns.push_back(field.column);
    TextTable table(std::move(columns));
    for (const auto& row : rows) {
        std::vector<std::string> cells;
        for (const auto& field : fields) cells.push_back(field.of(row));
        table.add(std::move(cells));
    }
    return (same.empty() ? "" : wrapped("all: " + printable(same), width)) + table.text(width);
}

std::string registration_numbers_view(const Json& page, std::size_t width) {
    const auto& numbers = part(page, "numbers");
    const auto& active = part(numbers, "active");
    TextTable table({{"registrations"},
                     {"now", true},
                     {fmt::format("in these {}", duration_text(number_of(numbers, "period_seconds"))), true},
                     {"since start", true},
                     {"most in 15 min", true}});
    table.add({"active", text_of(active, "now"), "at most " + text_of(active, "period_high"),
               "at most " + text_of(active, "lifetime_high"), ""});
    for (const char* what : {"registered", "refreshed", "challenged", "refused"})
        add_tally(table, what, "", part(numbers, what));
    return table.text(width) + fmt::format("limit {}\n", number_of(active, "limit"));
}

std::string core_view(const Json& core, std::size_t width) {
    TextTable table({{"next hop"},
                     {"over"},
                     {.title = "state", .is_state = true},
                     {"for", true},
                     {"round trip", true},
                     {"answers in", true}});
    const auto& hops = part(core, "hops");
    for (const auto& hop : hops)
        table.add({text_of(hop, "hop") + (hop.value("emergency", false) ? " (emergency)" : ""),
                   text_of(hop, "transport"), hop.value("disabled", false) ? "disabled" : text_of(hop, "state"),
                   hop.contains("for") ? duration_text(number_of(hop, "for")) : "",
                   milliseconds_text(hop, "round_trip_ms"), milliseconds_text(hop, "mean_answer_ms")});
    const auto drawn = table.text(width);
    std::string out;
    std::size_t at = 0;
    const auto copy_line = [&] {
        const auto end = std::min(drawn.find('\n', at), drawn.size() - 1) + 1;
        out += drawn.substr(at, end - at);
        at = end;
    };
    copy_line();
    for (const auto& hop : hops) {
        copy_line();
        out += detail_of(hop, width);
    }
    if (number_of(core, "ping_interval") == 0)
        out += "ping-interval is 0: what is down is seen by requests of phones only\n";
    return out;
}

std::string kept_view(const Json& kept, std::size_t) {
    std::string out = "Messages are kept of (gmctl trace --call CALL-ID, or gmctl trace IMPI):\n";
    for (const auto& one : kept) {
        const auto time = text_of(one, "time");
        const auto answer = number_of(one, "answer");
        const auto messages = number_of(one, "messages");
        out += fmt::format("{}  {} {}  {}\n          {} message{}, Call-ID {}\n",
                           time.size() >= 19 ? time.substr(11, 8) : printable(time), printable(text_of(one, "method")),
                           answer == 0 ? "without an answer" : std::to_string(answer), printable(text_of(one, "who")),
                           messages, messages == 1 ? "" : "s", printable(text_of(one, "call_id")));
    }
    return out;
}

std::string sa_stats_view(const Json& stats, std::size_t width) {
    TextTable table({{"interface"},
                     {"ipsec-3gpp", false, true},
                     {fmt::format("in these {}", duration_text(number_of(stats, "period_seconds"))), true},
                     {"since start", true},
                     {"most in 15 min", true}});
    for (const auto& interface : part(stats, "interfaces")) {
        add_tally(table, text_of(interface, "realm"), "attempts", part(interface, "attempts"));
        add_tally(table, "", "successes", part(interface, "successes"));
        add_tally(table, "", "failures", part(interface, "failures"));
        for (const auto& reason : part(interface, "reasons"))
            add_tally(table, "", "  " + text_of(reason, "reason"), reason);
    }
    return table.size() == 0 ? "No phone has tried yet.\n" : table.text(width);
}

}  // namespace gmgate::gmctl
