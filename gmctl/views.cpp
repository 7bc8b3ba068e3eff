#include "gmctl/views.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "gmctl/table.h"

namespace gmgate::gmctl {
using Json = nlohmann::json;

std::string text_of(const Json& object, const char* key) {
    const auto at = object.find(key);
    if (at == object.end() || at->is_null()) return "";
    return at->is_string() ? at->get<std::string>() : at->dump();
}

long long number_of(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_number() ? at->get<long long>() : 0;
}

const Json& part(const Json& object, const char* key) {
    static const Json nothing = Json::object();
    const auto at = object.find(key);
    return at == object.end() ? nothing : *at;
}

namespace {

std::string joined(const Json& list) {
    std::string all;
    for (const auto& one : list)
        all += (all.empty() ? "" : ", ") + (one.is_string() ? one.get<std::string>() : one.dump());
    return all;
}

// Ends keep their ports. Columns of troubles that nobody has are left out on a terminal.
std::string sa_lines(const Json& set, std::size_t width) {
    bool has_trouble = width == 0;
    for (const auto& sa : part(set, "sas"))
        for (const char* key : {"integrity_failures", "replay_drops", "replay_window_drops"})
            has_trouble = has_trouble || number_of(sa, key) != 0;
    std::vector<Column> columns{
        {"  SA"}, {"SPI"}, {"from", false, true, true}, {"to", false, true, true}, {"packets", true}, {"octets", true}};
    if (has_trouble) columns.insert(columns.end(), {{"integrity", true}, {"replay", true}, {"late", true}});
    TextTable sas(std::move(columns));
    for (const auto& sa : part(set, "sas"))
        sas.add({"  " + text_of(sa, "direction"), fmt::format("0x{:08x}", number_of(sa, "spi")), text_of(sa, "source"),
                 text_of(sa, "destination"), text_of(sa, "packets"), text_of(sa, "bytes"),
                 text_of(sa, "integrity_failures"), text_of(sa, "replay_drops"), text_of(sa, "replay_window_drops")});
    return sas.text(width) + (has_trouble ? "" : "  no integrity failures, replays or late packets\n");
}

std::string set_lines(const Json& set, std::size_t width) {
    const auto nat = set.contains("port_uenc")
                         ? fmt::format(", behind NAT: {} at UDP {}", text_of(set, "mod"), number_of(set, "port_uenc"))
                         : std::string();
    auto out = fmt::format("  set {}  {}{}, {}/{}{}, expires in {}\n", number_of(set, "set"), text_of(set, "state"),
                           set.value("in_use", false) ? ", in use" : "", text_of(set, "alg"), text_of(set, "ealg"), nat,
                           duration_text(number_of(set, "expires_in")));
    if (const auto error = text_of(set, "kernel_error"); !error.empty())
        out += "  the kernel does not tell: " + printable(error) + '\n';
    else if (part(set, "sas").empty()) out += "  the kernel has none of its SAs\n";
    else out += sa_lines(set, width);
    return out;
}

std::string tls_lines(const Json& tls) {
    auto out = fmt::format("  TLS session    {} <- {}, connection {}\n", text_of(tls, "local"), text_of(tls, "remote"),
                           number_of(tls, "connection"));
    if (!tls.contains("version")) return out + "                 the connection is closing\n";
    return out + fmt::format("                 {}, {}, {}carried by {}\n", text_of(tls, "version"),
                             text_of(tls, "cipher"), tls.value("resumed", false) ? "resumed, " : "",
                             text_of(tls, "carried_by"));
}

// Neighbouring ports of an address that are alike stand in one line.
std::string guard_lines(const Json& guards, std::size_t width) {
    struct Line {
        std::string address;
        long long first = 0, last = 0;
        bool in = false, out = false;
    };
    std::vector<Line> lines;
    for (const auto& guard : guards) {
        const auto address = text_of(guard, "address");
        const auto port = number_of(guard, "port");
        const auto last = port + std::max(number_of(guard, "ports"), 1LL) - 1;  // one policy may cover many
        if (lines.empty() || lines.back().address != address || lines.back().last != last)
            lines.push_back({address, port, last});
        (text_of(guard, "direction") == "in" ? lines.back().in : lines.back().out) = guard.value("in_kernel", false);
    }
    TextTable table({{"guards on"}, {"ports"}, {.title = "in", .is_state = true}, {.title = "out", .is_state = true}});
    const auto word = [](bool stands) { return stands ? "stands" : "MISSING"; };
    for (std::size_t i = 0; i < lines.size();) {
        auto line = lines[i];
        for (++i; i < lines.size() && lines[i].address == line.address && lines[i].first == line.last + 1 &&
                  lines[i].in == line.in && lines[i].out == line.out;
             ++i)
            line.last = lines[i].last;
        table.add({line.address,
                   line.first == line.last ? std::to_string(line.first) : fmt::format("{}-{}", line.first, line.last),
                   word(line.in), word(line.out)});
    }
    return table.size() == 0 ? "" : '\n' + table.text(width);
}

}  // namespace

std::string status_view(const Json& status, std::size_t width) {
    const auto& registrations = part(status, "registrations");
    const auto& sets = part(status, "sets");
    std::string out =
        fmt::format("gmgated {}  {} for {}, log level {}\nconfiguration  {}\n", text_of(status, "version"),
                    text_of(status, "state"), duration_text(number_of(status, "uptime")), text_of(status, "log_level"),
                    printable(text_of(status, "config")));
    if (status.value("keys_exported", false))
        out += painted("KEYS LEAVE     [lab] export-keys = true: whoever is root there reads all phones", Colour::bad) +
               '\n';
    out += fmt::format("core           {} -> {}\n", text_of(part(status, "core"), "listen"),
                       text_of(part(status, "core"), "next_hop"));
    out += fmt::format("registrations  {} over ipsec-3gpp, {} over tls, {} ending (limit {})\n",
                       number_of(registrations, "ipsec_3gpp"), number_of(registrations, "tls"),
                       number_of(registrations, "ending"), number_of(registrations, "limit"));
    out +=
        fmt::format("challenges     {} waiting for an answer (limit {})\n",
                    number_of(part(status, "challenges"), "waiting"), number_of(part(status, "challenges"), "limit"));
    out += fmt::format("sets of SAs    {} temporary, {} established, {} old\n", number_of(sets, "temporary"),
                       number_of(sets, "established"), number_of(sets, "old"));
    out += fmt::format("connections    {} open (limit {})\n", number_of(part(status, "connections"), "open"),
                       number_of(part(status, "connections"), "limit"));
    out += fmt::format(
        "transactions   {} server, {} client (limit {})\n", number_of(part(status, "transactions"), "server"),
        number_of(part(status, "transactions"), "client"), number_of(part(status, "transactions"), "limit"));
    out += fmt::format("guards         {}\n\n",
                       status.value("guards_stand", false)
                           ? "stand"
                           : "ONE IS MISSING and being restored; nothing is sent from protected ports");
    TextTable interfaces({{"interface"}, {"address"}, {"sec-agree"}, {"phones get", false, true}});
    for (const auto& one : part(status, "interfaces")) {
        const auto gets = joined(part(one, "mechanisms"));
        interfaces.add({text_of(one, "realm"), text_of(one, "address") + (one.value("usable", true) ? "" : " (gone)"),
                        one.value("sec_agree", false) ? "enabled" : "disabled",
                        gets.empty() ? "no service in clear" : gets});
    }
    out += interfaces.text(width);
    TextTable counters({{"counter"}, {"since start", true}});
    for (const auto& [name, value] : part(status, "counters").items())
        if (value != 0) counters.add({name, value.dump()});
    if (counters.size() != 0) out += '\n' + counters.text(width);
    return out;
}

// On a terminal: the identity's user part (the IMSI), which the domain follows in all of them, and what was decided.
std::string record_line(const Json& record, std::size_t width) {
    const auto impi = text_of(record, "impi"), time = text_of(record, "time");
    if (width != 0) {
        auto line = printable(fmt::format("{}  {}  {}  {}  {}", impi.substr(0, impi.find('@')),
                                          time.size() >= 19 ? time.substr(11, 8) : time, text_of(record, "ue"),
                                          number_of(record, "answer"), text_of(record, "why")));
        if (line.size() > width) line = line.substr(0, width - 1) + "…";
        return line + '\n';
    }
    std::string failed;
    for (const auto& check : part(record, "checks"))
        if (!check.value("passed", true)) failed += (failed.empty() ? "" : ",") + text_of(check, "check");
    return printable(fmt::format("{}  {}  {}  over {}  core {}  answer {}  {}{}", time, impi, text_of(record, "ue"),
                                 text_of(record, "over"), number_of(record, "core_status"), number_of(record, "answer"),
                                 text_of(record, "why"), failed.empty() ? "" : " [" + failed + "]")) +
           '\n';
}

std::string show_view(const Json& shown, std::size_t width) {
    std::string out;
    for (const auto& contact : part(shown, "contacts")) {
        out +=
            printable(fmt::format(
                "{}  {}, {}{}, expires in {}", text_of(contact, "impi"),
                contact.value("ended", false) ? "ending" : "registered", text_of(contact, "mechanism"),
                text_of(contact, "transport").empty() ? "" : " (REGISTER over " + text_of(contact, "transport") + ")",
                duration_text(number_of(contact, "expires_in")))) +
            '\n';
        out += "  contact        " + printable(text_of(contact, "contact")) + '\n';
        out += "  identities     " + printable(joined(part(contact, "impus"))) + '\n';
        if (!part(contact, "service_route").empty())
            out += "  service route  " + printable(joined(part(contact, "service_route"))) + '\n';
        if (part(contact, "identities").size() > 1)
            for (const auto& identity : part(contact, "identities"))
                out += printable(fmt::format("  registered as  {}: {}, expires in {}, service route {}",
                                             text_of(identity, "registered_as"), joined(part(identity, "impus")),
                                             duration_text(number_of(identity, "expires_in")),
                                             joined(part(identity, "service_route")))) +
                       '\n';
        if (!text_of(contact, "instance").empty())
            out += "  instance       " + printable(text_of(contact, "instance")) + " reg-id " +
                   printable(text_of(contact, "reg_id")) + '\n';
        if (contact.contains("tls")) out += tls_lines(contact["tls"]);
        for (const auto& set : part(contact, "sets")) out += set_lines(set, width);
        out += '\n';
    }
    for (const auto& challenge : part(shown, "challenges")) {
        out += printable(
                   fmt::format("{}  {} at {}", text_of(challenge, "impi"),
                               challenge.value("finished", false) ? "challenge answered" : "challenged, no answer yet,",
                               text_of(challenge, "ue"))) +
               '\n';
        out += set_lines(part(challenge, "set"), width) + '\n';
    }
    for (const auto& pending : part(shown, "waiting_for_core"))
        out += printable(fmt::format("REGISTER of {} from {} over {}: waits for the core", text_of(pending, "since"),
                                     text_of(pending, "ue"), text_of(pending, "over"))) +
               '\n';
    if (!part(shown, "records").empty()) out += "Its last REGISTERs:\n";
    for (const auto& record : part(shown, "records")) out += "  " + record_line(record, width > 2 ? width - 2 : 0);
    return out;
}

std::string cluster_view(const Json& cluster, std::size_t) {
    const auto state = text_of(cluster, "state");
    std::string out = fmt::format("cluster {}   node {}   {}", printable(text_of(cluster, "cluster")),
                                  number_of(cluster, "node"), printable(state));
    if (const auto epoch = number_of(cluster, "epoch"); epoch != 0) out += fmt::format("   epoch {}", epoch);
    out += '\n';
    if (!part(cluster, "missing_addresses").empty())
        out += "addresses that are not here: " + printable(joined(cluster["missing_addresses"])) + '\n';
    out += fmt::format("store          {}, {}\n", printable(text_of(cluster, "store")),
                       cluster.value("degraded", true) ? "DEGRADED: " + printable(text_of(cluster, "trouble")) : "up");
    out += fmt::format(
        "records        written {}, erased {}, waiting {}, failed {}; answers that left before theirs (unreplicated) {}\n",
        number_of(cluster, "records_written"), number_of(cluster, "records_erased"),
        number_of(cluster, "records_waiting"), number_of(cluster, "records_failed"),
        number_of(cluster, "unreplicated"));
    if (state == "standby" || state == "waiting")
        out += fmt::format("held ready     registrations {}, sets {}; {}\n", number_of(cluster, "ready_registrations"),
                           number_of(cluster, "ready_sets"),
                           cluster.value("is_level", false) ? "level with the store" : "NOT LEVEL with the store");
    out += fmt::format("other's sets   installed {}, moved {}, removed {}; records refused {}\n",
                       number_of(cluster, "sets_installed"), number_of(cluster, "sets_moved"),
                       number_of(cluster, "sets_removed"), number_of(cluster, "records_refused"));
    return out;
}

std::string kernel_view(const Json& kernel, std::size_t width) {
    std::string out = fmt::format(
        "guard policies {} ({})   reqid {}   SAs expected {}   sets waiting for deletion {}\n",
        part(kernel, "guards").size(),
        kernel.value("guards_stand", false) ? "stand" : "ONE IS MISSING and being restored", number_of(kernel, "reqid"),
        number_of(kernel, "sas_expected"), number_of(kernel, "sets_waiting_for_deletion"));
    if (const auto& engine = part(kernel, "engine"); engine.contains("name")) {
        const auto pid = number_of(engine, "pid");
        const std::string where =
            pid == 0 ? ""
                     : fmt::format(" in process {}, started {} time{}", pid, number_of(engine, "starts"),
                                   number_of(engine, "starts") == 1 ? "" : "s");
        out += fmt::format(
            "engine         {}{}{}; requests it refused: malformed {}, forbidden {}, too many at once {}\n",
            engine.value("name", "none yet"), where, engine.value("up", false) ? "" : ", DOWN at the moment",
            number_of(engine, "malformed"), number_of(engine, "forbidden"), number_of(engine, "flooded"));
    }
    const auto& netlink = part(kernel, "netlink");
    out += fmt::format(
        "netlink        {} requests in {} system calls; sets installed {}, refused {}, removed {}, rolled back {}\n",
        number_of(netlink, "requests"), number_of(netlink, "system_calls"), number_of(netlink, "sets_installed"),
        number_of(netlink, "sets_refused"), number_of(netlink, "sets_removed"), number_of(netlink, "rollbacks"));
    if (kernel.contains("audit")) {
        const auto& audit = kernel["audit"];
        out += fmt::format(
            "audit          {} SAs in the kernel, {} packets, {} integrity failures, {} replays, {} SAs without a packet\n",
            number_of(audit, "sas"), number_of(audit, "packets"), number_of(audit, "integrity_failures"),
            number_of(audit, "replays"), number_of(audit, "without_a_packet"));
    }
    out += guard_lines(part(kernel, "guards"), width);
    if (const auto why = text_of(kernel, "guards_not_told"); !why.empty())
        out += "as far as events tell; the kernel was not asked: " + printable(why) + '\n';
    for (const char* file : {"xfrm_stat", "tls_stat"}) {
        if (part(kernel, file).empty()) {
            out += fmt::format("\nthis kernel has no /proc/net/{}\n", file);
            continue;
        }
        TextTable table({{fmt::format("/proc/net/{}", file)}, {"value", true}, {"what it means", false, true}});
        for (const auto& one : kernel[file])
            table.add({text_of(one, "name"), text_of(one, "value"), text_of(one, "means")});
        out += '\n' + table.text(width);
    }
    return out;
}

std::string reload_view(const Json& report, std::size_t width) {
    std::string out;
    TextTable table(
        {{"setting", false, true}, {"before", false, true}, {"now", false, true}, {"what happened", false, true}});
    for (const auto& change : part(report, "applied"))
        table.add({text_of(change, "key"), text_of(change, "before"), text_of(change, "now"), "applied"});
    for (const auto& change : part(report, "refused"))
        table.add({text_of(change, "key"), text_of(change, "before"), text_of(change, "now"),
                   "not applied: " + text_of(change, "why")});
    if (table.size() == 0) out = "The file says what is in force; nothing has changed.\n";
    else out = table.text(width);
    for (const auto& note : part(report, "notes"))
        out += printable(note.is_string() ? note.get<std::string>() : note.dump()) + '\n';
    return out;
}

std::string why_view(const Json& verdict, std::size_t width) {
    const auto impi = printable(text_of(verdict, "impi")), word = text_of(verdict, "verdict");
    const auto colour = word == "registered"                          ? Colour::good
                        : word == "waiting" || word == "core-pending" ? Colour::doubtful
                                                                      : Colour::bad;
    return impi + "\n\n" + wrapped(printable(text_of(verdict, "paragraph")), width) + '\n' + impi + ": " +
           painted(word, colour) + '\n';
}

std::string why_view_with_evidence(const Json& verdict, std::size_t width) {
    std::string out = "Evidence:\n";
    for (const auto& fact : part(verdict, "evidence"))
        out += wrapped(printable(fact.is_string() ? fact.get<std::string>() : fact.dump()), width, "  ");
    if (!verdict.value("packet_tap", true))
        out += "\nThe packet tap is off: who sends to unknown SPIs or in clear is not known.\n";
    return out + '\n' + why_view(verdict, width);
}

std::string top_view(const Json& before, const Json& now, double seconds, std::size_t width, std::size_t height) {
    std::string out =
        wrapped(fmt::format("{}  registrations {}, challenges {}, sets {}, connections {}, transactions {}",
                            text_of(now, "time"), number_of(now, "registrations"), number_of(now, "challenges"),
                            number_of(now, "sets"), number_of(now, "connections"), number_of(now, "transactions")),
                width) +
        '\n';
    struct Row {
        std::string name;
        std::uint64_t grown = 0, total = 0;
    };
    std::vector<Row> rows;
    for (const auto& [name, value] : part(now, "counters").items()) {
        const auto total = value.get<std::uint64_t>();
        const auto earlier = static_cast<std::uint64_t>(number_of(part(before, "counters"), name.c_str()));
        if (total != 0) rows.push_back({name, total - std::min(earlier, total), total});
    }
    std::ranges::stable_sort(rows, std::greater{}, &Row::grown);
    const auto head = static_cast<std::size_t>(std::ranges::count(out, '\n')) + 2;  // the table's title and the cursor
    const std::size_t shown = height == 0 ? rows.size() : std::min(rows.size(), height > head ? height - head : 1);
    TextTable table({{"counter", false, true}, {"per second", true}, {"total", true}});
    for (std::size_t i = 0; i < shown; ++i)
        table.add({rows[i].name, fmt::format("{:.1f}", static_cast<double>(rows[i].grown) / std::max(seconds, 0.001)),
                   fmt::format("{}", rows[i].total)});
    return out + table.text(width);
}

}  // namespace gmgate::gmctl
