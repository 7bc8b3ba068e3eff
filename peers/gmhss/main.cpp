// gmhss: a small HSS for labs, demos and tests: Diameter Cx over TCP, with the users of gmcore.
#include "cx.h"
#include "node.h"

#include "../common/line_input.h"
#include "../common/load_identity.h"
#include "../common/program.h"
#include "../common/text.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace gmgate::peers {
namespace {

struct Options {
    std::vector<std::string> listen;
    std::string host;
    std::string realm{kDefaultRealm};
    std::string users_file;
    std::size_t users = 0;
    std::string k{kDefaultK};
    std::string opc{kDefaultOpc};
    std::string first_imsi{kDefaultImsi};
    std::string log;
    bool print_ready = false;
    CxServer::Options cx;
};

constexpr const char* kAbout =
    "gmhss - a small HSS for labs, demos and tests\n\n"
    "Speaks Diameter Cx (TS 29.228) over TCP to I-CSCFs and S-CSCFs that connect: UAR, MAR, SAR and LIR are answered,\n"
    "RTR and PPR are sent on command. AKA users (Milenage) and SIP digest users, the same that gmcore has.\n"
    "Not for production: everybody may connect, and nothing is stored.";
constexpr const char* kExamples =
    "COMMANDS on standard input\n"
    "  rtr IMPI [REASON-CODE]   end the registrations of a user (Registration-Termination-Request; 0: permanent)\n"
    "  ppr IMPI                 send the profile of a user again (Push-Profile-Request)\n"
    "  status IMPI              where the user's subscription stands\n"
    "Each prints one line of JSON: rta, ppa, status or error.\n\n"
    "EXAMPLES\n"
    "  gmhss --listen 127.0.0.1:3868 --users 10 --print-ready\n"
    "      ten generated AKA users, the first of which is gmue's default user\n"
    "  gmhss --listen '[fd00::2]:3868' --host hss.example.org --realm example.org --users-file users.toml --log "
    "hss.jsonl\n\n"
    "EXIT STATUS\n  0 ended by SIGTERM or SIGINT; 2 could not start.";

void add_options(CLI::App& app, Options& o) {
    app.add_option("--listen", o.listen, "ADDRESS[:PORT] for TCP, IPv4 or IPv6, port 3868 by default; may be repeated")
        ->required()
        ->type_name("ADDR");
    app.add_option("--host", o.host, "Origin-Host (default: hss.REALM)")->type_name("NAME");
    app.add_option("--realm", o.realm, "home domain, Origin-Realm and digest realm")->capture_default_str();
    app.add_option("--users-file", o.users_file,
                   "TOML file with [[user]] and [[range]] tables, as for gmcore; users may share a public identity")
        ->type_name("FILE");
    app.add_option("--users", o.users,
                   "generate N AKA users IMSI@realm; user i has its index xor-ed into the last octets of K")
        ->type_name("N");
    app.add_option("--k", o.k, "K of the first generated user, 32 hexadecimal digits")->capture_default_str();
    app.add_option("--opc", o.opc, "OPc of the generated users")->capture_default_str();
    app.add_option("--first-imsi", o.first_imsi, "IMSI of the first generated user")->capture_default_str();
    app.add_option("--application-server", o.cx.application_server,
                   "every profile has a filter that sends this server a REGISTER of its own")
        ->type_name("URI");
    app.add_option("--log", o.log, "write every decision as a line of JSON (no keys)")->type_name("FILE");
    app.add_flag("--print-ready", o.print_ready,
                 "print a line 'gmhss ready' on standard output when the sockets are open");
    app.footer(kExamples);
}

Result<void> load_users(const Options& o, UserStore& users) {
    if (o.users_file.empty() && o.users == 0) return fail("no users: give --users N or --users-file FILE");
    if (!o.users_file.empty())
        if (auto ok = users.load(o.users_file); !ok) return ok;
    if (o.users == 0) return {};
    const auto k = array_from_hex<16>(o.k);
    const auto opc = array_from_hex<16>(o.opc);
    if (!k || !opc) return fail("--k and --opc are 32 hexadecimal digits");
    users.add_range({o.first_imsi, o.users, *k, *opc}, "auth", DigestAlgorithm::akav1_md5);
    return {};
}

/// The program: the node, the decisions, and the commands of standard input.
class Hss {
public:
    Hss(Loop& loop, const Options& options, UserStore& users, MessageLog& log)
        : users_(users),
          cx_(users, log, options.cx),
          node_(loop, {options.host.empty() ? "hss." + users.realm() : options.host, users.realm()}, log,
                [this](const diameter::Message& m) { return cx_.handle(m); }),
          input_(
              loop, [this](const std::string& line) { obey(line); }, [] {}) {}

    Result<void> listen(const std::vector<std::string>& addresses) {
        for (const std::string& text : addresses) {
            const auto address = Endpoint::parse(text, 3868);
            if (!address) return std::unexpected(address.error());
            if (auto at = node_.listen(*address); !at) return std::unexpected(at.error());
        }
        return {};
    }

private:
    void obey(const std::string& line) {
        const std::vector<std::string> words = split_list(line, ' ');
        if (words.empty()) return;
        const std::string impi = words.size() > 1 ? words[1] : "";
        if (words[0] == "rtr")
            return terminate(impi, words.size() > 2 ? to_number<std::uint32_t>(words[2]).value_or(0) : 0);
        if (words[0] == "ppr") return push(impi);
        if (words[0] == "status") return status(impi);
        print({{"event", "error"},
               {"text", "unknown command '" + words[0] + "': rtr IMPI [REASON-CODE], ppr IMPI or status IMPI"}});
    }

    void terminate(const std::string& impi, std::uint32_t reason) {
        send("rta", impi, cx_.terminate(impi, reason), [this, impi] { cx_.terminated(impi); });
    }

    void push(const std::string& impi) {
        send("ppa", impi, cx_.push(impi), [] {});
    }

    void send(const std::string& event, const std::string& impi, Result<CxServer::Outgoing> outgoing,
              std::function<void()> on_success) {
        if (!outgoing) return print({{"event", "error"}, {"text", outgoing.error().text}});
        node_.request(outgoing->host, std::move(outgoing->message),
                      [event, impi, on_success = std::move(on_success)](Result<diameter::Message> answer) {
                          if (!answer) return print({{"event", "error"}, {"text", event + ": " + answer.error().text}});
                          const auto code = answer->avps.number(diameter::avp::kResultCode).value_or(0);
                          if (code == diameter::result::kSuccess.code) on_success();
                          print({{"event", event}, {"impi", impi}, {"result", code}});
                      });
    }

    void status(const std::string& impi) {
        const User* user = users_.by_impi(impi);
        if (!user) return print({{"event", "error"}, {"text", "no user '" + impi + "'"}});
        const Subscription& s = cx_.subscription_of(*user);
        print({{"event", "status"},
               {"impi", impi},
               {"registered", s.registered},
               {"server", s.server_name},
               {"unregistered_services", s.is_unregistered}});
    }

    static void print(const nlohmann::json& event) {
        const std::string line = to_line(event);
        std::fwrite(line.data(), 1, line.size(), stdout);
        std::fflush(stdout);
    }

    UserStore& users_;
    CxServer cx_;
    diameter::Node node_;
    LineInput input_;
};

int run(int argc, char** argv) {
    CLI::App app{kAbout, "gmhss"};
    Options options;
    add_options(app, options);
    app.set_version_flag("--version", std::string("gmhss ") + GMGATE_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    const auto give_up = [](const Error& error) {
        fmt::print(stderr, "gmhss: {}\n", error.text);
        return 2;
    };
    UserStore users(options.realm, UserStore::Sharing::allowed);
    if (auto ok = load_users(options, users); !ok) return give_up(ok.error());
    auto log = MessageLog::open(options.log);
    if (!log) return give_up(log.error());
    Loop loop;
    Hss hss(loop, options, users, *log);
    if (auto ok = hss.listen(options.listen); !ok) return give_up(ok.error());
    loop.on_signals({SIGTERM, SIGINT}, [&](int) { loop.stop(); });
    if (options.print_ready) {
        fmt::print("gmhss ready: {} users, listening on {}\n", users.size(), join(options.listen, " "));
        std::fflush(stdout);
    }
    loop.run();
    return 0;
}

}  // namespace
}  // namespace gmgate::peers

int main(int argc, char** argv) { return gmgate::peers::run_program("gmhss", gmgate::peers::run, argc, argv); }
