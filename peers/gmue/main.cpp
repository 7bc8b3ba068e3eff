// gmue: a test phone and load generator for IMS access security.
#include "scenarios.h"

#include "../common/program.h"

#include <cstdio>

namespace gmgate::peers {
namespace {

constexpr const char* kAbout =
    "gmue - a test phone and load generator for IMS access security (ipsec-3gpp and tls, TS 33.203)\n\n"
    "Registers like a strict phone: AKA with its own USIM, four SAs of its own in the kernel, UDP and TCP on the\n"
    "ports that the standard names; what arrives on another port is dropped and counted.";

struct Program {
    const Options& options;
    Loop& loop;
    PhoneEnvironment& environment;
    const Reporter& reporter;
    std::string subcommand;
    Exit exit = Exit::local;

    Task<void> run() {
        if (subcommand == "run") exit = co_await run_interactive(options, environment, reporter);
        else if (options.count > 1) exit = co_await run_load(options, environment, reporter, subcommand);
        else exit = co_await run_once(options, environment, reporter, subcommand);
        loop.stop();
    }
};

int give_up(const std::string& text) {
    fmt::print(stderr, "gmue: {}\n", text);
    return static_cast<int>(Exit::local);
}

int run(int argc, char** argv) {
    CLI::App app{kAbout, "gmue"};
    Options options;
    add_options(app, options);
    app.set_version_flag("--version", std::string("gmue ") + GMGATE_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : static_cast<int>(Exit::local);
    }
    apply_profile(app, options);
    const std::string subcommand = app.get_subcommands().front()->get_name();
    const auto start_sqn = array_from_hex<6>(options.sqn);
    if (!start_sqn) return give_up("--sqn is 12 hexadecimal digits");
    auto sqns = SqnStore::open(options.sqn_file, Sqn::from_octets(*start_sqn));
    if (!sqns) return give_up(sqns.error().text);
    auto log = MessageLog::open(options.log);
    if (!log) return give_up(log.error().text);
    std::unique_ptr<SaProgrammer> sas;
    if (auto ok = prepare(options); !ok) return give_up(ok.error().text);
    if (options.security == "ipsec-3gpp") {
        auto opened = SaProgrammer::open();
        if (!opened) return give_up(opened.error().text + "; --security none needs no XFRM");
        sas = std::move(*opened);
    }
    raise_file_limit();
    Loop loop;
    SpiPool spis;
    const Reporter reporter(options, subcommand == "run");
    PhoneEnvironment environment{loop, sas.get(), spis,
                                 *log, *sqns,     [&](const nlohmann::json& event) { reporter.event(event); }};
    Program program{options, loop, environment, reporter, subcommand};
    int signal = 0;
    loop.on_signals({SIGTERM, SIGINT}, [&](int number) {
        signal = number;
        loop.stop();
    });
    {
        Tasks main_task;
        main_task.spawn(program.run());
        loop.run();
        // Leaving this scope destroys the flow, its phones, and with them their SAs and policies.
    }
    if (auto saved = sqns->save(); !saved) return give_up(saved.error().text);
    if (signal != 0) return subcommand == "run" ? 0 : static_cast<int>(Exit::failed);
    return static_cast<int>(program.exit);
}

}  // namespace
}  // namespace gmgate::peers

int main(int argc, char** argv) { return gmgate::peers::run_program("gmue", gmgate::peers::run, argc, argv); }
