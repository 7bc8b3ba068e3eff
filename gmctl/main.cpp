// gmctl: asks a running gmgated over its control socket, and shows the answer to people (tables) or programs (--json).
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/near_word.h"
#include "gmctl/client.h"
#include "gmctl/configure/configure.h"
#include "gmctl/ladder.h"
#include "gmctl/pcap.h"
#include "gmctl/support.h"
#include "gmctl/table.h"
#include "gmctl/views.h"

namespace {

using namespace gmgate;
using gmctl::Client;
using Json = nlohmann::json;

constexpr const char* kDefaultSocket = "/run/gmgate/control.sock";

struct Options {
    std::string socket = kDefaultSocket;
    bool json = false;
    std::string of, call, filter, level, html, pcap, hop, change, output, config, log, sort = "impi";
    std::string realm, mechanism, algorithm, address, state;  ///< of registrations
    bool follow = false, off = false, audit = false, once = false, as_text = false, as_mermaid = false, failed = false,
         verbose = false, numbers = false;
    double interval = 2;
};

/// kWrong: what was typed, or the configuration file.
enum Exit { kOk = 0, kFailed = 1, kWrong = 2 };

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

void print_json(const Json& value, bool pretty = true) {
    print(value.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace) + '\n');
}

/// With --json in the form that the control socket uses, where the answer would have been.
int fail(const Options& options, const Error& error, Exit status = kFailed) {
    if (options.json)
        print_json({{"ok", false}, {"error", {{"reason", to_string(error.reaction)}, {"text", error.text}}}});
    else std::fprintf(stderr, "gmctl: %s\n", gmctl::printable(error.text).c_str());
    return status;
}

/// Asks once and shows the answer by `view`.
int ask_and_show(const Options& options, const std::string& command, const Json& arguments,
                 std::string (*view)(const Json&, std::size_t)) {
    auto client = Client::connect(options.socket);
    if (!client) return fail(options, client.error());
    const auto answer = client->ask(command, arguments);
    if (!answer) return fail(options, answer.error());
    if (options.json) print_json(*answer);
    else print(view(*answer, gmctl::terminal_width()));
    return kOk;
}

/// Numbers by size, the rest by its text; equal ones by identity.
void sort_by(Json& rows, const std::string& key) {
    const std::string field = key == "expires" ? "expires_in" : key;
    std::vector<Json> sorted(std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
    std::ranges::stable_sort(sorted, std::less{}, [](const Json& row) { return row.value("impi", ""); });
    std::ranges::stable_sort(sorted, std::less{}, [&](const Json& row) { return row.value(field, Json()); });
    rows = Json(std::move(sorted));
}

int registrations(const Options& options) {
    if (options.numbers && !options.follow && !options.json)  // they stand on each page
        return ask_and_show(options, "registrations", {{"limit", 1}}, gmctl::registration_numbers_view);
    auto client = Client::connect(options.socket);
    if (!client) return fail(options, client.error());
    if (options.follow) {
        const auto ended = client->ask("follow", {{"filter", options.filter}}, [&](const Json& event) {
            if (options.json) print_json(event, false);
            else print(gmctl::record_line(event, gmctl::terminal_width()));
            return true;
        });
        return ended ? kOk : fail(options, ended.error());
    }
    Json all = Json::array();
    Json page;
    do {
        const auto answer = client->ask("registrations", {{"filter", options.filter},
                                                          {"realm", options.realm},
                                                          {"mechanism", options.mechanism},
                                                          {"algorithm", options.algorithm},
                                                          {"address", options.address},
                                                          {"state", options.state},
                                                          {"skip", all.size()}});
        if (!answer) return fail(options, answer.error());
        page = *answer;
        for (auto& row : page["registrations"]) all.push_back(std::move(row));
    } while (!page["registrations"].empty() && all.size() < page.value("matches", std::size_t{0}));
    sort_by(all, options.sort);
    page["registrations"] = std::move(all);
    if (options.json) {
        print_json(page);
        return kOk;
    }
    print(gmctl::registrations_view(page, gmctl::terminal_width()));
    std::printf("%zu of %zu registrations\n", page["registrations"].size(), page.value("total", std::size_t{0}));
    return kOk;
}

bool write_file(const std::string& path, const std::string& bytes, const char* mode) {
    std::FILE* file = std::fopen(path.c_str(), mode);
    if (!file) {
        std::fprintf(stderr, "gmctl: %s: %s\n", path.c_str(), std::strerror(errno));
        return false;
    }
    const bool ok = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    return std::fclose(file) == 0 && ok;
}

std::string failed_view(const Json& answer, std::size_t width) {
    std::string out;
    if (answer.contains("failed"))
        for (const auto& record : answer["failed"]) out += gmctl::record_line(record, width);
    if (out.empty()) out = "no phone's last REGISTER failed\n";
    return answer.contains("kept") && !answer["kept"].empty() ? out + '\n' + gmctl::kept_view(answer["kept"], width)
                                                              : out;
}

/// What `trace` has been told so far, and where it goes.
class Drawing {
public:
    explicit Drawing(const Options& options) : options_(options) { plan_.width = gmctl::terminal_width(); }

    bool begin() const { return options_.pcap.empty() || write_file(options_.pcap, gmctl::pcap_header(), "w"); }
    std::string head() const {
        if (options_.as_text) return {};
        return options_.as_mermaid ? gmctl::ladder_mermaid_head(plan_) : gmctl::ladder_head(plan_);
    }
    /// All at once: who has a column is known before the first line.
    bool draw_all(const Json& messages, const std::string& impi) {
        for (const auto& json : messages) messages_.push_back(gmctl::ladder_message(json));
        plan_ = gmctl::ladder_plan(impi, messages_, plan_.width);
        if (!options_.json) print(head());
        for (std::size_t i = 0; i < messages_.size(); ++i) {
            if (!options_.json) print(drawn(messages_[i], i == 0 ? 0 : messages_[i - 1].microseconds));
            if (!to_pcap(messages_[i])) return false;
        }
        return to_page();
    }
    /// One that has just come; with the other phone's first one the columns are others from then on.
    bool follow(const Json& json) {
        const auto since = messages_.empty() ? 0 : messages_.back().microseconds;
        messages_.push_back(gmctl::ladder_message(json));
        if (plan_.phone.empty() && json.contains("impi")) plan_.phone = json.value("impi", "");
        const bool is_new = !plan_.has_other && gmctl::is_other(plan_, messages_.back());
        plan_.has_other = plan_.has_other || is_new;
        if (options_.json) print_json(json, false);
        else print((is_new && !options_.as_mermaid ? head() : "") + drawn(messages_.back(), since));
        return to_pcap(messages_.back()) && to_page();
    }

private:
    std::string drawn(const gmctl::LadderMessage& message, std::int64_t since) const {
        if (options_.as_text) return gmctl::ladder_text(plan_, message, since);
        return options_.as_mermaid ? gmctl::ladder_mermaid(plan_, message, since)
                                   : gmctl::ladder_line(plan_, message, since);
    }
    bool to_pcap(const gmctl::LadderMessage& message) const {
        return options_.pcap.empty() || write_file(options_.pcap, gmctl::pcap_record(message), "a");
    }
    bool to_page() const {
        const auto title = "SIP of " + (options_.call.empty() ? options_.of : "Call-ID " + options_.call);
        return options_.html.empty() || write_file(options_.html, gmctl::ladder_html(title, plan_, messages_), "w");
    }
    const Options& options_;
    gmctl::LadderPlan plan_;
    std::vector<gmctl::LadderMessage> messages_;
};

/// What `trace` answers when it is no list of messages.
std::string trace_state_view(const Options& options, const Json& answer) {
    return answer.contains("users")
               ? "traced: " + gmctl::printable(answer["users"].dump()) + "\n"
               : "trace of " + gmctl::printable(options.of) + " is off; its messages are forgotten\n";
}

// The files hold what users said: only the caller may read them.
int trace(const Options& options) {
    if (options.failed) return ask_and_show(options, "trace", {{"failed", true}}, failed_view);
    umask(077);
    auto client = Client::connect(options.socket);
    if (!client) return fail(options, client.error());
    Drawing drawing(options);
    if (!drawing.begin()) return kFailed;
    if (options.follow && !options.json) print(drawing.head());
    const auto answer = client->ask(
        "trace", {{"of", options.of}, {"call", options.call}, {"follow", options.follow}, {"off", options.off}},
        [&](const Json& event) { return drawing.follow(event); });
    if (!answer) return fail(options, answer.error());
    if (options.follow) return kOk;
    if (options.json) print_json(*answer);
    if (!answer->contains("messages")) {
        if (!options.json) print(trace_state_view(options, *answer));
        return kOk;
    }
    if (!drawing.draw_all((*answer)["messages"], answer->value("impi", ""))) return kFailed;
    if (!options.json && answer->value("state", "on") != "on")
        print("The trace was off and is on from now; ask again when the phone has tried. 'gmctl trace " +
              gmctl::printable(options.of) + " --off' ends it.\n");
    return kOk;
}

int top(const Options& options) {
    auto client = Client::connect(options.socket);
    if (!client) return fail(options, client.error());
    auto before = client->ask("rates");
    auto at = std::chrono::steady_clock::now();
    while (before) {
        std::this_thread::sleep_for(std::chrono::duration<double>(options.interval));
        auto now = client->ask("rates");
        if (!now) return fail(options, now.error());
        const auto then = std::exchange(at, std::chrono::steady_clock::now());
        const auto seconds = std::chrono::duration<double>(at - then).count();
        if (options.json) print_json({{"seconds", seconds}, {"before", *before}, {"now", *now}}, false);
        else
            print((isatty(STDOUT_FILENO) != 0 && !options.once ? "\x1b[H\x1b[2J" : "") +
                  gmctl::top_view(*before, *now, seconds, gmctl::terminal_width(), gmctl::terminal_height()));
        if (options.once) return kOk;
        before = std::move(now);
    }
    return fail(options, before.error());
}

std::string deregister_view(const Json& answer, std::size_t) {
    return gmctl::printable(answer.value("impi", "")) + ": " + std::to_string(answer.value("contacts", 0)) +
           " contact(s) and " + std::to_string(answer.value("sets", 0)) +
           " set(s) of SAs ended here. The core still has the registration until it expires there; the phone notices when nothing answers.\n";
}
std::string drain_view(const Json& answer, std::size_t) {
    return answer.value("state", "") == "draining"
               ? "New registrations are refused (503); " + std::to_string(answer.value("registrations", 0)) +
                     " go on until they end. 'gmctl drain --off' ends this.\n"
               : std::string("New registrations are taken again.\n");
}
std::string hop_view(const Json& answer, std::size_t) {
    const auto hop = gmctl::printable(answer.value("hop", ""));
    return answer.value("disabled", false)
               ? hop + " takes nothing new; dialogs and what a Route sends there go on. 'gmctl core enable " + hop +
                     "' ends this, so does a restart.\n"
               : hop + " is in use again.\n";
}
std::string level_view(const Json& answer, std::size_t) { return answer.value("level", "") + '\n'; }

/// Adds a subcommand whose exit status is that of `run`.
using AddCommand = std::function<CLI::App*(const char* name, const char* help, std::function<int()> run)>;

/// What only looks.
void add_looking(const AddCommand& command, Options& options) {
    command("status", "what the gateway does at the moment",
            [&] { return ask_and_show(options, "status", Json::object(), gmctl::status_view); });
    auto* list = command("registrations", "registered contacts", [&] { return registrations(options); });
    list->add_option("filter", options.filter, "only those whose identity contains this, or at this address");
    list->add_flag("-f,--follow", options.follow, "instead print each REGISTER as it is decided, until interrupted");
    list->add_flag("-n,--numbers", options.numbers,
                   "instead print how many: now, in this period, since start, at most");
    list->add_option("--realm", options.realm, "only those of this sip-interface");
    list->add_option("--mechanism", options.mechanism, "only those protected so")
        ->check(CLI::IsMember({"ipsec-3gpp", "tls"}));
    list->add_option("--algorithm", options.algorithm, "only those with this alg, ealg or alg/ealg");
    list->add_option("--address", options.address, "only those at this address");
    list->add_option("--state", options.state, "only those that are so")
        ->check(CLI::IsMember({"registered", "ending"}));
    list->add_option("--sort", options.sort, "order of the list")
        ->check(CLI::IsMember({"impi", "expires", "ue", "realm", "mechanism", "algorithms"}))
        ->capture_default_str();
    auto* show = command(
        "show",
        "everything about one phone: sets of SAs with the kernel's packet counters, TLS session, last REGISTERs", [&] {
            return ask_and_show(options, "show", {{"of", options.of}}, gmctl::show_view);
        });
    show->add_option("phone", options.of, "IMPI, IMPU or address (ADDRESS or ADDRESS:PORT)")->required();
    auto* why = command("why", "why a phone does not register: one paragraph, and the verdict", [&] {
        return ask_and_show(options, "why", {{"of", options.of}},
                            options.verbose ? gmctl::why_view_with_evidence : gmctl::why_view);
    });
    why->add_flag("-v,--verbose", options.verbose, "with the evidence that it rests on");
    why->add_option("phone", options.of, "IMPI, its user part (IMSI), or an IMPU of a registered phone")->required();
    command("sa-stats", "agreements on ipsec-3gpp: attempts, successes, failures by reason, for each interface",
            [&] { return ask_and_show(options, "sa-stats", Json::object(), gmctl::sa_stats_view); });
    auto* ladder = command("trace", "keep and draw the decrypted SIP of one user: phone, gateway and core (admin)",
                           [&] { return trace(options); });
    ladder->add_option("phone", options.of, "IMPI; without it: who is traced");
    ladder->add_option("--call", options.call, "instead what is kept of this call or registration that failed")
        ->type_name("CALL-ID");
    ladder->add_flag("-f,--follow", options.follow, "go on drawing as messages come, until interrupted");
    ladder->add_flag("--off", options.off, "end the trace and forget its messages");
    ladder->add_flag(
        "--failed", options.failed,
        "instead list what failed: phones by their last REGISTER, and what is kept of registrations and calls");
    auto* text = ladder->add_flag("--text", options.as_text, "whole messages instead of arrows");
    ladder->add_flag("--mermaid", options.as_mermaid, "a sequence diagram for Mermaid instead")->excludes(text);
    ladder->add_option("--html", options.html, "also write the diagram with all messages as one HTML page")
        ->type_name("FILE");
    ladder->add_option("--pcap", options.pcap, "also write the messages for Wireshark")->type_name("FILE");
}

/// `activate-config` of the shell.
Result<std::string> activate(const Options& options) {
    auto client = Client::connect(options.socket);
    if (!client) return std::unexpected(client.error());
    const auto answer = client->ask("reload");
    if (!answer) return std::unexpected(answer.error());
    return gmctl::reload_view(*answer, gmctl::terminal_width());
}

/// `gmctl core [disable|enable HOP]`
int core(const Options& options) {
    if (options.change.empty()) return ask_and_show(options, "core", Json::object(), gmctl::core_view);
    if (options.hop.empty())
        return fail(
            options,
            {Reaction::reject, 0, "name the next hop, as gmctl core shows it: gmctl core " + options.change + " HOP"},
            kWrong);
    return ask_and_show(options, "core-" + options.change, {{"hop", options.hop}}, hop_view);
}

/// For a bug report; also when no gateway answers.
int support(const Options& options) {
    umask(077);
    gmctl::SupportSources sources;
    sources.config = options.config;
    sources.log = options.log;
    sources.ask = [&](const std::string& what) -> Result<Json> {
        auto client = Client::connect(options.socket);
        if (!client) return std::unexpected(client.error());
        return client->ask(what);
    };
    const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    char stamp[32] = "";
    if (gmtime_r(&now, &parts)) std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &parts);
    const auto path = options.output.empty() ? "gmgate-support-" + std::string(stamp) + ".tar" : options.output;
    const auto files = gmctl::support_files(sources);
    if (!write_file(path, gmctl::tar_archive(files, static_cast<std::uint64_t>(now)), "w")) return kFailed;
    if (options.json) print_json({{"file", path}, {"files", files.size()}});
    else
        print(
            path + ": " + std::to_string(files.size()) +
            " files of text; identities, keys and lines of the log are not in them, your addresses are. Look into them before you send them.\n");
    return kOk;
}

/// What changes something, or looks at all of the kernel.
void add_steering(const AddCommand& command, Options& options) {
    auto* deregister = command("deregister", "end all contacts of an IMPI here and remove their SAs (admin)", [&] {
        return ask_and_show(options, "deregister", {{"impi", options.of}}, deregister_view);
    });
    deregister->add_option("impi", options.of, "IMPI")->required();
    command("reload", "read the configuration again and apply what can change without touching registrations (admin)",
            [&] { return ask_and_show(options, "reload", Json::object(), gmctl::reload_view); });
    auto* drain = command("drain", "refuse new registrations, let those that stand go on (admin)", [&] {
        return ask_and_show(options, "drain", {{"off", options.off}}, drain_view);
    });
    drain->add_flag("--off", options.off, "take new registrations again");
    auto* level = command("log-level", "tell or set from which level on lines are logged (admin)", [&] {
        return ask_and_show(options, "log-level", {{"level", options.level}}, level_view);
    });
    level->add_option("level", options.level, "debug, info, notice, warning or error")
        ->check(CLI::IsMember({"debug", "info", "notice", "warning", "error"}));
    auto* core_command =
        command("core", "the next hops: up or down since when, why, how fast; disable or enable one (admin)",
                [&] { return core(options); });
    core_command->add_option("change", options.change, "disable or enable; without it: look")
        ->check(CLI::IsMember({"disable", "enable"}));
    core_command->add_option("hop", options.hop, "ADDRESS:PORT or name of the next hop");
    auto* report =
        command("support", "one archive for a bug report: configuration, status, counters; no identities, no keys",
                [&] { return support(options); });
    report->add_option("-o,--output", options.output, "the archive; default: gmgate-support-TIME.tar")
        ->type_name("FILE");
    report->add_option("-c,--config", options.config, "configuration; default: the one that the gateway has read")
        ->type_name("FILE");
    report->add_option("--log", options.log, "log of gmgated; default: its journal")->type_name("FILE");
    auto* kernel = command("kernel", "guard policies, SAs, and the kernel's counters with what each one means", [&] {
        return ask_and_show(options, "kernel", {{"audit", options.audit}}, gmctl::kernel_view);
    });
    kernel->add_flag("--audit", options.audit,
                     "also list and sum up all SAs in the kernel (takes time with many phones)");
    command("cluster", "who serves, since when, and how the shared store does",
            [&] { return ask_and_show(options, "cluster", Json::object(), gmctl::cluster_view); });
    auto* rates = command("top", "live rates of everything that is counted", [&] { return top(options); });
    rates->add_option("-d,--interval", options.interval, "seconds between two looks")
        ->check(CLI::Range(0.1, 3600.0))
        ->capture_default_str();
    rates->add_flag("--once", options.once, "look once and end");
}

void add_global_options(CLI::App& app, Options& options) {
    app.set_version_flag("--version", GMGATE_VERSION);
    app.add_option("-s,--socket", options.socket, "control socket of gmgated (control-socket in gmgate.toml)")
        ->envname("GMGATE_CONTROL_SOCKET")
        ->capture_default_str();
    app.add_flag("-j,--json", options.json, "print JSON instead of tables");
    app.require_subcommand(1);
    app.fallthrough();
}

std::vector<std::string> command_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const auto* command : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(command->get_name());
    return names;
}

/// `gmctl help [COMMAND]`
int help(CLI::App& app, const Options& options) {
    if (options.of.empty()) {
        print(app.help());
        return kOk;
    }
    const auto names = command_names(app);
    if (std::ranges::find(names, options.of) == names.end())
        return fail(
            options,
            {Reaction::reject, 0, "there is no command \"" + options.of + "\"" + did_you_mean(options.of, names)},
            kWrong);
    print(app.get_subcommand(options.of)->help());
    return kOk;
}

/// The first word that is no option and no option's value: the command, or what was meant as one.
std::string command_in(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "-s" || word == "--socket") ++i;
        else if (!word.starts_with('-')) return word;
    }
    return {};
}

/// What was typed wrongly, and what may have been meant.
int misunderstood(CLI::App& app, Options& options, const CLI::ParseError& error, int argc, char** argv) {
    for (int i = 1; i < argc; ++i)
        options.json = options.json || argv[i] == std::string("--json") || argv[i] == std::string("-j");
    const auto names = command_names(app);
    const auto typed = command_in(argc, argv);
    std::string text = error.what();
    if (typed.empty()) text = "a command is missing; gmctl help lists them";
    else if (std::ranges::find(names, typed) == names.end())
        text = "there is no command \"" + typed + "\"" + did_you_mean(typed, names) + "; gmctl help lists them";
    else {
        std::vector<std::string> known;
        for (const auto* option : app.get_subcommand(typed)->get_options())
            for (const auto& name : option->get_lnames()) known.push_back("--" + name);
        for (int i = 1; i < argc; ++i)
            if (std::string(argv[i]).starts_with("--")) text += did_you_mean(argv[i], known);
        text += "; see gmctl help " + typed;
    }
    return fail(options, {Reaction::reject, 0, text}, kWrong);
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    gmctl::use_colour(gmctl::terminal_has_colour());
    CLI::App app{"gmctl: look into a running gmgated and steer it."};
    Options options;
    add_global_options(app, options);
    int status = kOk;
    const AddCommand command = [&](const char* name, const char* about, std::function<int()> run) {
        auto* sub = app.add_subcommand(name, about);
        sub->callback([&status, run = std::move(run)] { status = run(); });
        return sub;
    };

    add_looking(command, options);
    add_steering(command, options);
    daemon::configure::Options shell;
    auto* configure = command(
        "configure",
        "change gmgate.toml in a shell: configure terminal, session-router, sip-interface, …; needs no running gmgated",
        [&] { return daemon::configure::run(shell); });
    configure->add_option("-c,--config", shell.config, "file to change")->capture_default_str()->type_name("FILE");
    configure->add_flag("-n,--dry-run", shell.is_dry_run, "write nothing; show the difference at the end");
    shell.activate = [&options] { return activate(options); };
    configure->add_option("--prompt", shell.prompt, "the word before # in the prompt")->capture_default_str();
    command("help", "what a command does and takes", [&] {
        return help(app, options);
    })->add_option("command", options.of, "one of the commands; without it: all of them");

    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {  // --help, --version
        return app.exit(asked);
    } catch (const CLI::ParseError& error) {
        return misunderstood(app, options, error, argc, argv);
    }
    return status;
}
