// Lists of phones, and numbers as operators know them: declared in views.h.
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
