// gmgate-export-keys: what Wireshark needs to read the access side of a lab. Root alone, and only with [lab]
// export-keys.
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "daemon/config/config.h"
#include "daemon/config/lab.h"
#include "lab/access_capture.h"
#include "lab/esp_sa.h"
#include "lab/recorder.h"
#include "xfrm/export/sa_keys.h"

namespace {

using namespace gmgate;

struct Options {
    std::string config = "/etc/gmgate/gmgate.toml";
    std::string table, capture;
    double seconds = 0;
};

/// kWrong: the command line, the configuration, or the caller is not root.
enum Exit { kOk = 0, kFailed = 1, kWrong = 2 };

volatile std::sig_atomic_t g_is_over = 0;

int fail(const std::string& why, Exit status = kFailed) {
    std::fprintf(stderr, "gmgate-export-keys: %s\n", why.c_str());
    return status;
}

/// The SAs that stand now, to standard output or a file.
int write_table(const daemon::Config& config, const Options& options) {
    const auto all = xfrm::read_sa_keys(ReqId{config.xfrm.reqid});
    if (!all) return fail(all.error().text);
    std::string lines;
    for (const auto& keys : *all) lines += lab::esp_sa_line(keys);
    if (options.table.empty()) {
        std::fwrite(lines.data(), 1, lines.size(), stdout);
        return std::fflush(stdout) == 0 ? kOk : fail("standard output cannot be written");
    }
    auto file = lab::SecretFile::open(options.table);
    if (!file) return fail(file.error().text);
    if (auto ok = file->write(lines); !ok) return fail(ok.error().text);
    return kOk;
}

std::optional<int> milliseconds_until(std::optional<std::chrono::steady_clock::time_point> end) {
    if (!end) return 1000;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end - std::chrono::steady_clock::now()).count();
    if (left <= 0) return std::nullopt;
    return static_cast<int>(std::min<long long>(left, 1000));
}

int record(const daemon::Config& config, const Options& options) {
    auto capture = lab::AccessCapture::open(config);
    if (!capture) return fail(capture.error().text);
    auto table = lab::SecretFile::open(options.table.empty() ? options.capture + ".esp_sa" : options.table);
    if (!table) return fail(table.error().text);
    auto file = lab::SecretFile::open(options.capture);
    if (!file) return fail(file.error().text);
    lab::Recorder::Settings settings{ReqId{config.xfrm.reqid}, daemon::lab_of(config.settings).tls_key_log};
    auto recorder = lab::Recorder::begin(std::move(settings), std::move(*table), std::move(*file));
    if (!recorder) return fail(recorder.error().text);
    std::fprintf(stderr, "gmgate-export-keys: recording to %s, until it is interrupted\n", options.capture.c_str());
    std::optional<std::chrono::steady_clock::time_point> end;
    if (options.seconds > 0)
        end = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                     std::chrono::duration<double>(options.seconds));
    for (;;) {
        const bool is_last = g_is_over != 0;  // what came before the signal is still written
        while (const auto packet = capture->next())
            if (auto ok = recorder->take(*packet); !ok) return fail(ok.error().text);
        if (auto ok = recorder->write_due(is_last); !ok) return fail(ok.error().text);
        const auto patience = milliseconds_until(end);
        if (is_last) break;
        if (!patience) {
            g_is_over = 1;
            continue;
        }
        pollfd fd{capture->native_handle(), POLLIN, 0};
        if (poll(&fd, 1, *patience) < 0 && errno != EINTR) return fail("the packet socket cannot be waited for");
    }
    if (auto ok = recorder->look(); !ok) return fail(ok.error().text);  // SAs that stand and have carried nothing
    std::fprintf(stderr, "gmgate-export-keys: %zu packets, %zu SAs\n", recorder->packets(), recorder->sas());
    if (const auto lost = capture->dropped(); lost != 0)
        return fail(std::to_string(lost) + " packets were lost: the disk is too slow for this traffic");
    return kOk;
}

void listen_for_signals() {
    struct sigaction action {};
    action.sa_handler = [](int) { g_is_over = 1; };
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "gmgate-export-keys: the keys of a lab's phones for Wireshark: its table of ESP SAs, and a capture that it opens. As root, with [lab] export-keys = true."};
    Options options;
    app.add_option("-c,--config", options.config, "configuration file of gmgated")
        ->capture_default_str()
        ->type_name("FILE");
    app.add_option("-t,--esp-sa", options.table,
                   "write the table there instead of to standard output; with --pcapng, instead of beside it")
        ->type_name("FILE");
    app.add_option("-w,--pcapng", options.capture,
                   "record the access side, with the secrets of TLS in the file, and add SAs to the table as they come")
        ->type_name("FILE");
    app.add_option("-s,--seconds", options.seconds, "end the recording after so long")->check(CLI::PositiveNumber);
    app.set_version_flag("--version", GMGATE_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kOk : kWrong;
    }
    umask(077);
    const auto config = daemon::load_config(options.config);
    if (!config) return fail(config.error().text, kWrong);
    if (!daemon::lab_of(config->settings).export_keys)
        return fail(options.config +
                        ": no key is exported without the setting, not to root either. For a lab without subscribers: "
                        "[lab] export-keys = true, and restart gmgated, which then says so wherever it says anything",
                    kWrong);
    if (geteuid() != 0) return fail("only root may read keys: sudo", kWrong);
    std::fprintf(stderr, "gmgate-export-keys: whoever has this output reads all that these phones say\n");
    listen_for_signals();
    return options.capture.empty() ? write_table(*config, options) : record(*config, options);
}
