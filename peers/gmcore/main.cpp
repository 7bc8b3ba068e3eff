// gmcore: a small IMS core (I/S-CSCF and HSS in one) for labs, demos and tests.
#include "behaviour.h"
#include "core_link.h"
#include "proxy.h"
#include "register_transactions.h"
#include "registrar.h"
#include "users.h"

#include "../common/load_identity.h"
#include "../common/program.h"
#include "../common/task.h"
#include "../common/text.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace gmgate::peers {
namespace {

struct Options {
    std::vector<std::string> listen;
    std::string tls_cert;
    std::string tls_key;
    std::string tls_ca;
    std::string realm{kDefaultRealm};
    std::string users_file;
    std::size_t users = 0;
    std::string k{kDefaultK};
    std::string opc{kDefaultOpc};
    std::string first_imsi{kDefaultImsi};
    std::string qop = "auth";
    std::string algorithm = "AKAv1-MD5";
    std::string log;
    bool print_ready = false;
    bool steer = false;
    Behaviour behaviour;
    int refuse = 0;
    int wrong_response = 0;
    std::int64_t expires = -1;
    std::int64_t delay = 0;
    std::string end_subscriptions;
};

constexpr const char* kAbout =
    "gmcore - a small IMS core (I/S-CSCF and HSS in one) for labs, demos and tests\n\n"
    "Registers AKA users (Milenage; ck and ik go to the P-CSCF in the 401) and plain digest users, and routes\n"
    "requests between registered users by their Path. UDP and TCP on every --listen address. Not for production:\n"
    "it trusts its neighbours and its --log holds keys.";
constexpr const char* kExamples =
    "EXAMPLES\n"
    "  gmcore --listen 127.0.0.1:5060 --users 10 --print-ready\n"
    "      ten generated AKA users, the first of which is gmue's default user\n"
    "  gmcore --listen 10.0.1.2:5060 --listen '[fd00::2]:5060' --users-file users.toml --log core.jsonl\n"
    "  gmcore --listen 10.0.1.2 --users 1 --challenge-refresh\n\n"
    "SIGUSR1 de-registers every user, as a network does, and tells who subscribed to reg. SIGUSR2 tells them that\n"
    "a former address of each user and an emergency contact have ended, while the binding stands.\n\n"
    "EXIT STATUS\n  0 ended by SIGTERM or SIGINT; 2 could not start.";

void add_options(CLI::App& app, Options& o) {
    app.add_option("--listen", o.listen,
                   "ADDRESS[:PORT] for UDP and TCP, IPv4 or IPv6, port 5060 by default; may be repeated")
        ->required()
        ->type_name("ADDR");
    app.add_option("--tls-cert", o.tls_cert, "TLS instead of TCP, in both directions: PEM file with the certificate")
        ->type_name("FILE");
    app.add_option("--tls-key", o.tls_key, "its private key")->type_name("FILE");
    app.add_option("--tls-ca", o.tls_ca, "demand certificates that this PEM file signed, of clients and servers")
        ->type_name("FILE");
    app.add_option("--realm", o.realm, "home domain and digest realm")->capture_default_str();
    app.add_option("--users-file", o.users_file, "TOML file with [[user]] and [[range]] tables")->type_name("FILE");
    app.add_option("--users", o.users,
                   "generate N AKA users IMSI@realm; user i has its index xor-ed into the last octets of K")
        ->type_name("N");
    app.add_option("--k", o.k, "K of the first generated user, 32 hexadecimal digits")->capture_default_str();
    app.add_option("--opc", o.opc, "OPc of the generated users")->capture_default_str();
    app.add_option("--first-imsi", o.first_imsi, "IMSI of the first generated user")->capture_default_str();
    app.add_option("--qop", o.qop, "qop of the generated users' challenge: auth or none")
        ->check(CLI::IsMember({"auth", "none"}))
        ->capture_default_str();
    app.add_option("--algorithm", o.algorithm, "AKAv1-MD5, AKAv2-MD5 or AKAv2-SHA-256 for the generated users")
        ->capture_default_str();
    app.add_option("--log", o.log,
                   "write every message in and out, and every decision, as lines of JSON (holds ck and ik)")
        ->type_name("FILE");
    app.add_flag("--print-ready", o.print_ready,
                 "print a line 'gmcore ready' on standard output when the sockets are open");
    const char* faults = "Behaviour for tests";
    app.add_flag("--challenge-refresh", o.behaviour.challenge_refresh, "challenge every re-REGISTER")->group(faults);
    app.add_option("--refuse", o.refuse, "answer every REGISTER with STATUS")->type_name("STATUS")->group(faults);
    app.add_flag("--omit-keys", o.behaviour.omit_keys, "send the 401 without ck and ik")->group(faults);
    app.add_flag("--stale-challenge", o.behaviour.stale_challenge,
                 "challenge with sequence number 0, so that the phone resynchronises")
        ->group(faults);
    app.add_option("--wrong-response", o.wrong_response,
                   "answer a wrong response with STATUS (401: a new challenge) instead of 403")
        ->type_name("STATUS")
        ->group(faults);
    app.add_option("--expires", o.expires, "grant S seconds whatever is asked for")->type_name("S")->group(faults);
    app.add_option("--delay", o.delay, "wait before every answer to REGISTER")->type_name("MS")->group(faults);
    app.add_option("--end-subscriptions", o.end_subscriptions,
                   "end every subscription to reg at once, with these parameters of Subscription-State: "
                   "'reason=probation;retry-after=60'")
        ->type_name("PARAMETERS")
        ->group(faults);
    app.add_flag("--silent", o.behaviour.silent, "never answer REGISTER")->group(faults);
    app.add_flag(
           "--steer", o.steer,
           "obey a header X-Gmcore-Do in a REGISTER: challenge, no-challenge, omit-keys, stale, silent, refuse=STATUS, delay=MS, expires=S (comma list)")
        ->group(faults);
    app.footer(kExamples);
}

Result<void> finish_options(Options& o) {
    if (o.refuse != 0) o.behaviour.refuse = o.refuse;
    if (o.wrong_response != 0) o.behaviour.wrong_response_status = o.wrong_response;
    if (o.expires >= 0) o.behaviour.expires = static_cast<std::uint32_t>(o.expires);
    o.behaviour.delay = std::chrono::milliseconds(o.delay);
    if (o.users_file.empty() && o.users == 0) return fail("no users: give --users N or --users-file FILE");
    return {};
}

Result<void> load_users(const Options& o, UserStore& users) {
    if (!o.users_file.empty())
        if (auto ok = users.load(o.users_file); !ok) return ok;
    if (o.users == 0) return {};
    const auto k = array_from_hex<16>(o.k);
    const auto opc = array_from_hex<16>(o.opc);
    const auto algorithm = digest_algorithm_from(o.algorithm);
    if (!k || !opc) return fail("--k and --opc are 32 hexadecimal digits");
    if (!algorithm || !is_aka(*algorithm)) return fail("--algorithm {} is not an AKA algorithm", o.algorithm);
    users.add_range({o.first_imsi, o.users, *k, *opc}, o.qop == "none" ? "" : o.qop, *algorithm);
    return {};
}

/// The program: wires link, registrar and proxy together.
class Core {
public:
    Core(Loop& loop, const Options& options, UserStore& users, MessageLog& log)
        : loop_(loop),
          options_(options),
          users_(users),
          log_(log),
          link_(loop, log, [this](SipMessage m, const Origin& o) { on_message(std::move(m), o); }),
          proxy_(users, link_, log) {}

    Result<void> start() {
        if (!options_.tls_cert.empty()) {
            const TlsIdentity own{options_.tls_cert, options_.tls_key};
            auto server = TlsContext::server({own, options_.tls_ca});
            if (!server) return std::unexpected(server.error());
            auto client = TlsContext::client({TlsVersion::any, options_.tls_ca, "", own});
            if (!client) return std::unexpected(client.error());
            link_.use_tls(std::move(*server), std::move(*client));
        }
        for (const std::string& text : options_.listen) {
            const auto address = Endpoint::parse(text, 5060);
            if (!address) return std::unexpected(address.error());
            if (address->address() == "0.0.0.0" || address->address() == "::")
                return fail("--listen {}: name the address, it goes into Service-Route and Via", text);
            if (auto ok = link_.listen(*address); !ok) return ok;
        }
        return {};
    }

    RegNotifier& notifier() { return proxy_.notifier(); }

private:
    void on_message(SipMessage message, const Origin& origin) {
        if (!message.is_request()) return proxy_.handle_response(std::move(message));
        if (!message.is("REGISTER")) return proxy_.handle_request(std::move(message), origin);
        note_source(message, origin.remote);
        const auto [is_new, answer] = transactions_.note(message);
        if (answer) return link_.respond(*answer, origin);
        if (!is_new) return;  // its answer is on the way, or never comes
        Behaviour behaviour = options_.behaviour;
        if (options_.steer)
            for (const std::string& word : message.list(kSteerHeader))
                if (auto ok = behaviour.apply(word); !ok) log_.write({{"event", "error"}, {"text", ok.error().text}});
        Registrar registrar(users_, log_,
                            fmt::format("<sip:orig@{}{};lr>", origin.local.to_string(),
                                        link_.uri_transport(origin.tcp && !options_.tls_cert.empty())));
        auto response = registrar.handle(message, behaviour);
        if (!response) return;
        later_.spawn(respond(std::move(message), std::move(*response), origin, behaviour.delay));
    }

    Task<void> respond(SipMessage request, SipMessage response, Origin origin, std::chrono::milliseconds delay) {
        if (delay.count() != 0) co_await sleep_for(loop_, delay);
        transactions_.answer(request, response);
        link_.respond(response, origin);
    }

    Loop& loop_;
    const Options& options_;
    UserStore& users_;
    MessageLog& log_;
    CoreLink link_;
    Proxy proxy_;
    RegisterTransactions transactions_;
    Tasks later_;
};

int run(int argc, char** argv) {
    CLI::App app{kAbout, "gmcore"};
    Options options;
    add_options(app, options);
    app.set_version_flag("--version", std::string("gmcore ") + GMGATE_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    const auto give_up = [](const Error& error) {
        fmt::print(stderr, "gmcore: {}\n", error.text);
        return 2;
    };
    if (auto ok = finish_options(options); !ok) return give_up(ok.error());
    UserStore users(options.realm);
    if (auto ok = load_users(options, users); !ok) return give_up(ok.error());
    auto log = MessageLog::open(options.log);
    if (!log) return give_up(log.error());
    raise_file_limit();
    Loop loop;
    Core core(loop, options, users, *log);
    core.notifier().end_each(options.end_subscriptions);
    if (auto ok = core.start(); !ok) return give_up(ok.error());
    loop.on_signals({SIGTERM, SIGINT, SIGUSR1, SIGUSR2}, [&](int signal) {
        if (signal == SIGUSR1) core.notifier().deregister_all();
        else if (signal == SIGUSR2) core.notifier().end_former_contacts();
        else loop.stop();
    });
    log->write({{"event", "ready"}, {"users", users.size()}});
    if (options.print_ready) {
        fmt::print("gmcore ready: {} users, listening on {}\n", users.size(), join(options.listen, " "));
        std::fflush(stdout);
    }
    loop.run();
    return 0;
}

}  // namespace
}  // namespace gmgate::peers

int main(int argc, char** argv) { return gmgate::peers::run_program("gmcore", gmgate::peers::run, argc, argv); }
