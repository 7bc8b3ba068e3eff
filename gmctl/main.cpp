// gmctl: asks a running gmgated over its control socket, and shows the answer to people (tables) or programs (--json).
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "gmctl/client.h"
#include "gmctl/configure/configure.h"
#include "gmctl/ladder.h"
#include "gmctl/pcap.h"
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
    std::string of, filter, level, html, pcap;
    bool follow = false, off = false, audit = false, once = false;
    double interval = 2;
};

enum Exit { kOk = 0, kFailed = 1 };

int fail(const Error& error) {
    std::fprintf(stderr, "gmctl: %s\n", gmctl::printable(error.text).c_str());
    return kFailed;
}

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

void print_json(const Json& value, bool pretty = true) {
    print(value.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace) + '\n');
}

/// Asks once and shows the answer by `view`.
int ask_and_show(const Options& options, const std::string& command, const Json& arguments,
                 std::string (*view)(const Json&, std::size_t)) {
    auto client = Client::connect(options.socket);
    if (!client) return fail(client.error());
    const auto answer = client->ask(command, arguments);
    if (!answer) return fail(answer.error());
    if (options.json) print_json(*answer);
    else print(view(*answer, gmctl::terminal_width()));
    return kOk;
}

int registrations(const Options& options) {
    auto client = Client::connect(options.socket);
    if (!client) return fail(client.error());
    if (options.follow) {
        const auto ended = client->ask("follow", {{"filter", options.filter}}, [&](const Json& event) {
            if (options.json) print_json(event, false);
            else print(gmctl::record_line(event, gmctl::terminal_width()));
            return true;
        });
        return ended ? kOk : fail(ended.error());
    }
    Json all = Json::array();
    Json page;
    do {
        const auto answer = client->ask("registrations", {{"filter", options.filter}, {"skip", all.size()}});
        if (!answer) return fail(answer.error());
        page = *answer;
        for (auto& row : page["registrations"]) all.push_back(std::move(row));
    } while (!page["registrations"].empty() && all.size() < page.value("matches", std::size_t{0}));
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

// The files hold what users said: only the caller may read them.
int trace(const Options& options) {
    umask(077);
    auto client = Client::connect(options.socket);
    if (!client) return fail(client.error());
    const auto width = gmctl::terminal_width();
    std::vector<gmctl::LadderMessage> messages;
    if (!options.pcap.empty() && !write_file(options.pcap, gmctl::pcap_header(), "w")) return kFailed;
    const auto take = [&](const Json& json) {
        messages.push_back(gmctl::ladder_message(json));
        if (options.json && options.follow) print_json(json, false);
        else if (!options.json) print(gmctl::ladder_line(messages.back(), width));
        if (!options.pcap.empty() && !write_file(options.pcap, gmctl::pcap_record(messages.back()), "a")) return false;
        if (!options.html.empty() &&
            !write_file(options.html, gmctl::ladder_html("SIP of " + options.of, messages), "w"))
            return false;
        return true;
    };
    if (options.follow && !options.json) print(gmctl::ladder_head(width));
    const auto answer =
        client->ask("trace", {{"of", options.of}, {"follow", options.follow}, {"off", options.off}}, take);
    if (!answer) return fail(answer.error());
    if (options.follow) return kOk;
    if (!answer->contains("messages")) {
        if (options.json) print_json(*answer);
        else
            print(answer->contains("users")
                      ? "traced: " + gmctl::printable((*answer)["users"].dump()) + "\n"
                      : "trace of " + gmctl::printable(options.of) + " is off; its messages are forgotten\n");
        return kOk;
    }
    if (options.json) print_json(*answer);
    else print(gmctl::ladder_head(width));
    for (const auto& message : (*answer)["messages"])
        if (!take(message)) return kFailed;
    if (!options.html.empty() && messages.empty() &&
        !write_file(options.html, gmctl::ladder_html("SIP of " + options.of, messages), "w"))
        return kFailed;
    if (!options.json && answer->value("state", "") != "on")
        print("The trace was off and is on from now; ask again when the phone has tried. 'gmctl trace " +
              gmctl::printable(options.of) + " --off' ends it.\n");
    return kOk;
}

int top(const Options& options) {
    auto client = Client::connect(options.socket);
    if (!client) return fail(client.error());
    auto before = client->ask("rates");
    auto at = std::chrono::steady_clock::now();
    while (before) {
        std::this_thread::sleep_for(std::chrono::duration<double>(options.interval));
        auto now = client->ask("rates");
        if (!now) return fail(now.error());
        const auto then = std::exchange(at, std::chrono::steady_clock::now());
        const auto seconds = std::chrono::duration<double>(at - then).count();
        if (options.json) print_json({{"seconds", seconds}, {"before", *before}, {"now", *now}}, false);
        else
            print((isatty(STDOUT_FILENO) != 0 && !options.once ? "\x1b[H\x1b[2J" : "") +
                  gmctl::top_view(*before, *now, seconds, gmctl::terminal_width()));
        if (options.once) return kOk;
        before = std::move(now);
    }
    return fail(before.error());
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
    auto* show = command(
        "show",
        "everything about one phone: sets of SAs with the kernel's packet counters, TLS session, last REGISTERs", [&] {
            return ask_and_show(options, "show", {{"of", options.of}}, gmctl::show_view);
        });
    show->add_option("phone", options.of, "IMPI, IMPU or address (ADDRESS or ADDRESS:PORT)")->required();
    auto* why = command("why", "why a phone does not register: one paragraph, and the evidence", [&] {
        return ask_and_show(options, "why", {{"of", options.of}}, gmctl::why_view);
    });
    why->add_option("phone", options.of, "IMPI, its user part (IMSI), or an IMPU of a registered phone")->required();
    auto* ladder = command("trace", "keep and draw the decrypted SIP of one user: phone, gateway and core (admin)",
                           [&] { return trace(options); });
    ladder->add_option("phone", options.of, "IMPI; without it: who is traced");
    ladder->add_flag("-f,--follow", options.follow, "go on drawing as messages come, until interrupted");
    ladder->add_flag("--off", options.off, "end the trace and forget its messages");
    ladder->add_option("--html", options.html, "also write the diagram with all messages as one HTML page")
        ->type_name("FILE");
    ladder->add_option("--pcap", options.pcap, "also write the messages for Wireshark")->type_name("FILE");
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
    auto* kernel = command("kernel", "guard policies, SAs, and the kernel's counters with what each one means", [&] {
        return ask_and_show(options, "kernel", {{"audit", options.audit}}, gmctl::kernel_view);
    });
    kernel->add_flag("--audit", options.audit,
                     "also list and sum up all SAs in the kernel (takes time with many phones)");
    auto* rates = command("top", "live rates of everything that is counted", [&] { return top(options); });
    rates->add_option("-d,--interval", options.interval, "seconds between two looks")
        ->check(CLI::Range(0.1, 3600.0))
        ->capture_default_str();
    rates->add_flag("--once", options.once, "look once and end");
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    CLI::App app{"gmctl: look into a running gmgated and steer it."};
    Options options;
    app.set_version_flag("--version", GMGATE_VERSION);
    app.add_option("-s,--socket", options.socket, "control socket of gmgated (control-socket in gmgate.toml)")
        ->envname("GMGATE_CONTROL_SOCKET")
        ->capture_default_str();
    app.add_flag("-j,--json", options.json, "print JSON instead of tables");
    app.require_subcommand(1);
    app.fallthrough();
    int status = kOk;
    const AddCommand command = [&](const char* name, const char* help, std::function<int()> run) {
        auto* sub = app.add_subcommand(name, help);
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
    configure->add_option("--prompt", shell.prompt, "the word before # in the prompt")->capture_default_str();

    CLI11_PARSE(app, argc, argv);
    return status;
}
