#include "options.h"

#include "../common/load_identity.h"
#include "../common/profiles.h"
#include "../common/text.h"
#include "../common/transport.h"

namespace gmgate::peers {
namespace {

Duration seconds_of(double seconds) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// The address from which the kernel would talk to the gateway.
Result<Endpoint> source_towards(const Endpoint& gateway) {
    const Fd fd(socket(gateway.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    if (!fd || connect(fd.get(), gateway.raw(), gateway.raw_size()) != 0 ||
        getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0)
        return fail("no route to {}: give --local", gateway.to_string());
    return Endpoint::from(storage).with_port(0);
}

struct Place {
    Endpoint local;
    std::size_t slot = 0;  ///< how many phones stand before this one on the same address
};

Result<Place> place_of(const Options& o, const Endpoint& gateway, std::size_t index) {
    if (o.addresses.empty()) {
        auto local = o.local.empty() ? source_towards(gateway) : Endpoint::parse(o.local, 0);
        if (!local) return std::unexpected(local.error());
        return Place{local->with_port(0), index};
    }
    const auto plus = o.addresses.rfind('+');
    const auto count =
        plus == std::string::npos ? std::nullopt : to_number<std::uint32_t>(o.addresses.substr(plus + 1));
    if (!count || *count == 0) return fail("--addresses is ADDRESS+COUNT, as in 10.1.0.2+16");
    const auto first = Endpoint::parse(o.addresses.substr(0, plus), 0);
    if (!first) return std::unexpected(first.error());
    return Place{first->advanced(static_cast<std::uint32_t>(index % *count)), index / *count};
}

Result<void> set_secrets(const Options& o, PhoneConfig& config, std::size_t index) {
    if (!o.password.empty()) {
        config.password = SecretBytes(as_bytes(o.password));
        return {};
    }
    if (!o.op.empty() && !o.opc.empty()) return fail("give one of --op and --opc");
    const auto k = array_from_hex<16>(o.k.empty() ? kDefaultK : std::string_view(o.k));
    const auto opc = array_from_hex<16>(!o.op.empty()   ? std::string_view(o.op)
                                        : o.opc.empty() ? kDefaultOpc
                                                        : std::string_view(o.opc));
    if (!k || !opc) return fail("--k, --op and --opc are 32 hexadecimal digits");
    const Key<16> first{std::span<const std::uint8_t, 16>(*k)};
    AkaSecrets secrets{key_at(first, index), Key<16>(std::span<const std::uint8_t, 16>(*opc))};
    if (!o.op.empty()) secrets.opc = opc_from_op(secrets.k, secrets.opc);
    config.aka = std::move(secrets);
    return {};
}

Result<std::vector<Header>> headers_of(const std::vector<std::string>& lines) {
    std::vector<Header> out;
    for (const std::string& line : lines) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) return fail("'{}' is not a header: write 'Name: value'", line);
        out.push_back({std::string(trim(line.substr(0, colon))), std::string(trim(line.substr(colon + 1)))});
    }
    return out;
}

void set_identity(const Options& o, PhoneConfig& config, std::size_t index) {
    config.realm = o.realm.empty() ? std::string(kDefaultRealm) : o.realm;
    config.impi = !o.impi.empty()
                      ? o.impi
                      : imsi_at(o.imsi.empty() ? kDefaultImsi : std::string_view(o.imsi), index) + '@' + config.realm;
    config.impu = !o.impu.empty() ? o.impu : "sip:" + config.impi;
    config.instance = o.instance;
    config.emergency = o.emergency;
}

Result<void> set_ports(const Options& o, PhoneConfig& config, const Place& place) {
    config.port_us = o.port_us;
    config.port_uc = o.port_uc;
    if (o.count > 1) {
        const std::size_t port = o.port_base + place.slot * config.port_block;
        if (port + config.port_block > 65535)
            return fail("{} phones do not fit on one address: spread them with --addresses", o.count);
        config.port_us = static_cast<std::uint16_t>(port);
        config.port_uc = 0;
    }
    return {};
}

}  // namespace

void apply_profile(const CLI::App& app, Options& o) {
    const Profile* profile = find_profile(o.profile);
    if (profile == nullptr) return;
    const auto apply = [&app](const char* option, std::string& value, std::string_view said) {
        if (app.count(option) == 0) value = said;
    };
    apply("--offer", o.offer, profile->offer);
    apply("--register-over", o.register_over, profile->register_over);
    if (app.count("--register-over") == 0) apply("--message-over", o.message_over, profile->message_over);
    apply("--instance", o.instance, profile->instance);
}

Result<void> prepare(Options& o) {
    if (!o.security.starts_with("tls")) return {};
    auto context = TlsContext::client({o.tls_version == "1.2"   ? TlsVersion::v1_2
                                       : o.tls_version == "1.3" ? TlsVersion::v1_3
                                                                : TlsVersion::any,
                                       o.tls_ca,
                                       o.tls_name,
                                       {}});
    if (!context) return std::unexpected(context.error());
    o.tls_context = std::move(*context);
    return {};
}

Result<PhoneConfig> make_config(const Options& o, std::size_t number) {
    const std::size_t index = o.index + number;
    PhoneConfig config;
    const auto gateway = Endpoint::parse(o.gateway, 5060);
    if (!gateway) return fail("--gateway: {}", gateway.error().text);
    config.gateway = *gateway;
    const auto place = place_of(o, *gateway, number);
    if (!place) return std::unexpected(place.error());
    config.local = place->local.with_port(o.count > 1 ? std::uint16_t{0} : o.port);
    if (config.local.family() != gateway->family())
        return fail("local address {} and gateway {} are of different families", config.local.address(),
                    gateway->address());
    set_identity(o, config, index);
    if (auto ok = set_secrets(o, config, index); !ok) return std::unexpected(ok.error());
    if (auto ok = set_ports(o, config, *place); !ok) return std::unexpected(ok.error());
    auto offer = parse_offer(o.offer, o.offer_invalid);
    if (!offer) return fail("--offer: {}", offer.error().text);
    config.offer = std::move(*offer);
    if (const Profile* profile = find_profile(o.profile)) config.habits = profile->habits;
    config.nat = o.nat;
    config.nat_private = o.nat_private;
    config.nat_keep_alive = seconds_of(o.nat_keep_alive);
    config.ipsec = o.security == "ipsec-3gpp";
    if (config.ipsec && !config.aka)
        return fail("--password users have no keys for ipsec-3gpp: add --security none, tls or tls-prior");
    config.tls = o.security == "tls"         ? TlsUse::during_registration
                 : o.security == "tls-prior" ? TlsUse::prior_to_registration
                                             : TlsUse::none;
    config.tls_context = o.tls_context;
    config.tls_port = o.tls_port;
    config.register_over_tcp = o.register_over == "tcp";
    config.message_over_tcp = (o.message_over.empty() ? o.register_over : o.message_over) == "tcp";
    config.spi_uc = o.spi_uc;
    config.spi_us = o.spi_us;
    config.expires = o.expires;
    config.t1 = seconds_of(o.t1);
    config.t2 = std::max(seconds_of(16), config.t1);
    config.timeout = seconds_of(o.timeout);
    config.old_set_grace = seconds_of(o.old_set_grace);
    config.answer_after = seconds_of(o.answer_after);
    config.rport = o.rport;
    config.security_verify = !o.no_security_verify;
    config.raw_security_client = o.security_client;
    config.raw_security_verify = o.security_verify;
    auto headers = headers_of(o.add_header);
    auto register_headers = headers_of(o.add_register_header);
    if (!headers || !register_headers) return std::unexpected(headers ? register_headers.error() : headers.error());
    config.extra_headers = std::move(*headers);
    config.extra_register_headers = std::move(*register_headers);
    config.copies = o.copies;
    config.calls = o.calls;
    config.faults = o.faults;
    return config;
}

namespace {

void add_phone_options(CLI::App& app, Options& o) {
    const char* who = "Who the phone is";
    app.add_option("--gateway", o.gateway, "ADDRESS[:PORT] of the P-CSCF's unprotected port (5060)")
        ->required()
        ->type_name("ADDR")
        ->group(who);
    app.add_option("--local", o.local, "source address; default: the one that the route to the gateway uses")
        ->type_name("ADDR")
        ->group(who);
    app.add_option("--impi", o.impi, "private identity; default IMSI@REALM")->group(who);
    app.add_option("--impu", o.impu, "public identity; default sip:IMPI")->type_name("URI")->group(who);
    app.add_option("--imsi", o.imsi, "IMSI of the first phone [001010000000001]")->group(who);
    app.add_option("--realm", o.realm, "home domain [ims.mnc001.mcc001.3gppnetwork.org]")->group(who);
    app.add_option("--index", o.index, "be the N-th generated user of gmcore --users, counted from 0")
        ->type_name("N")
        ->group(who);
    app.add_option("--k", o.k, "K, 32 hexadecimal digits; default: that of gmcore --users")
        ->type_name("HEX")
        ->group(who);
    app.add_option("--opc", o.opc, "OPc, 32 hexadecimal digits")->type_name("HEX")->group(who);
    app.add_option("--op", o.op, "OP instead of OPc")->type_name("HEX")->group(who);
    app.add_option("--password", o.password, "plain digest user (with --security tls, tls-prior or none)")->group(who);
    app.add_option("--sqn", o.sqn, "highest sequence number accepted so far, 12 hexadecimal digits")
        ->type_name("HEX")
        ->capture_default_str()
        ->group(who);
    app.add_option("--sqn-file", o.sqn_file, "keep the sequence numbers in FILE between runs")
        ->type_name("FILE")
        ->group(who);
    app.add_flag("--emergency", o.emergency, "an emergency registration: Contact with the URI parameter sos")
        ->group(who);
    app.add_option("--instance", o.instance, "+sip.instance, as urn:gsma:imei:35245510-000000-0")
        ->type_name("URN")
        ->group(who);
}

// `list` ends the program as --version does, whatever else is missing.
void choose_profile(const std::string& name, Options& o) {
    if (name == "list") throw CLI::CallForVersion(profile_list().substr(0, profile_list().size() - 1), 0);
    if (find_profile(name) == nullptr)
        throw CLI::ValidationError("--profile",
                                   fmt::format("no phone is called {}; there are\n{}", name, profile_list()));
    o.profile = name;
}

void add_profile_option(CLI::App& app, Options& o) {
    app.add_option_function<std::string>(
           "--profile", [&o](const std::string& name) { choose_profile(name, o); },
           "write offers, choose SPIs and ports and use transports as a family of phones does; options that are given count "
           "more; 'list' tells which there are")
        ->type_name("NAME")
        ->group("Protection, transport and timers");
}

void add_protection_options(CLI::App& app, Options& o) {
    const char* how = "Protection, transport and timers";
    app.add_option(
           "--security", o.security,
           "ipsec-3gpp; tls: agreed on in a clear REGISTER; tls-prior: TLS from the start, no sec-agree; none: straight at a core")
        ->check(CLI::IsMember({"ipsec-3gpp", "tls", "tls-prior", "none"}))
        ->capture_default_str()
        ->group(how);
    app.add_option("--offer", o.offer, "algorithms offered, in order, as alg/ealg,alg/ealg or 'all'")
        ->capture_default_str()
        ->group(how);
    app.add_flag("--offer-invalid", o.offer_invalid, "allow combinations that the standard forbids")->group(how);
    app.add_option("--register-over", o.register_over, "udp or tcp")
        ->check(CLI::IsMember({"udp", "tcp"}))
        ->capture_default_str()
        ->group(how);
    app.add_option("--message-over", o.message_over,
                   "udp or tcp for everything but REGISTER; default as --register-over")
        ->check(CLI::IsMember({"udp", "tcp"}))
        ->group(how);
    app.add_option("--tls-port", o.tls_port, "the gateway's TLS port")
        ->type_name("PORT")
        ->capture_default_str()
        ->group(how);
    app.add_option("--tls-version", o.tls_version, "1.2, 1.3 or any")
        ->check(CLI::IsMember({"1.2", "1.3", "any"}))
        ->capture_default_str()
        ->group(how);
    app.add_option("--tls-ca", o.tls_ca, "check the gateway's certificate against this PEM file; default: no check")
        ->type_name("FILE")
        ->group(how);
    app.add_option("--tls-name", o.tls_name, "SNI, and with --tls-ca the DNS name that the certificate must have")
        ->type_name("NAME")
        ->group(how);
    app.add_option("--port", o.port, "unprotected port; default any")->type_name("PORT")->group(how);
    app.add_option("--port-us", o.port_us, "protected server port; default chosen")->type_name("PORT")->group(how);
    app.add_option("--port-uc", o.port_uc, "first protected client port; default the one after port-us")
        ->type_name("PORT")
        ->group(how);
    app.add_option("--spi-uc", o.spi_uc, "SPI of the first set; default random")->type_name("SPI")->group(how);
    app.add_option("--spi-us", o.spi_us, "SPI of the first set; default random")->type_name("SPI")->group(how);
    app.add_option("--expires", o.expires, "registration time asked for")
        ->type_name("S")
        ->capture_default_str()
        ->group(how);
    app.add_option("--t1", o.t1, "SIP timer T1")->type_name("S")->capture_default_str()->group(how);
    app.add_option("--timeout", o.timeout, "give a request up after this time")
        ->type_name("S")
        ->capture_default_str()
        ->group(how);
    app.add_option("--old-set-grace", o.old_set_grace, "keep the set before a re-authentication at most this long")
        ->type_name("S")
        ->capture_default_str()
        ->group(how);
    app.add_flag("--rport", o.rport, "put rport into protected Vias (the answer must still come to port-us)")
        ->group(how);
    app.add_flag("--no-security-verify", o.no_security_verify,
                 "leave Security-Verify and sec-agree out of requests other than REGISTER")
        ->group(how);
}

void add_nat_options(CLI::App& app, Options& o) {
    const char* how = "Protection, transport and timers";
    app.add_flag(
           "--nat", o.nat,
           "offer mod=UDP-enc-tun too, and use it when the 401 shows a NAT (TS 33.203 Annex M); its public address "
           "becomes one of this namespace's own")
        ->group(how);
    app.add_flag("--nat-private", o.nat_private,
                 "against Annex M, as some phones do: its private address is inside the tunnel, in Via and in Contact")
        ->group(how);
    app.add_option("--nat-keep-alive", o.nat_keep_alive, "keep-alives to the gateway's UDP 4500; 0: none")
        ->type_name("S")
        ->capture_default_str()
        ->group(how);
}

void add_call_options(CLI::App& app, Options& o) {
    const char* how = "Calls";
    app.add_option("--answer-after", o.answer_after, "ring this long before answering a call")
        ->type_name("S")
        ->capture_default_str()
        ->group(how);
    app.add_flag("--100rel", o.calls.reliable,
                 "reliable provisional responses (RFC 3262) in calls, as caller and as callee")
        ->group(how);
    app.add_flag("--early-update", o.calls.early_update, "as caller: UPDATE in every early dialog after its PRACK")
        ->group(how);
    app.add_option("--early-dialogs", o.calls.early_dialogs,
                   "as callee: ring with N To tags in turn; the last one answers")
        ->check(CLI::Range(1, 20))
        ->type_name("N")
        ->capture_default_str()
        ->group(how);
    app.add_option("--reject", o.calls.reject, "as callee: STATUS instead of an answer, after --answer-after")
        ->check(CLI::Range(300, 699))
        ->type_name("STATUS")
        ->group(how);
    app.add_flag("!--no-ring", o.calls.ring, "as callee: no 18x before the final response")->group(how);
}

void add_fault_options(CLI::App& app, Options& o) {
    const char* faults = "Misbehaviour for tests";
    app.add_option("--security-client", o.security_client, "send this Security-Client value")
        ->type_name("RAW")
        ->group(faults);
    app.add_option("--security-verify", o.security_verify, "send this Security-Verify value in the second REGISTER")
        ->type_name("RAW")
        ->group(faults);
    app.add_option("--add-header", o.add_header, "'Name: value' for every request; may be repeated")->group(faults);
    app.add_option("--add-register-header", o.add_register_header, "'Name: value' for REGISTER; may be repeated")
        ->group(faults);
    app.add_flag("--wrong-ik", o.faults.wrong_ik, "program the SAs with another IK")->group(faults);
    app.add_flag("--wrong-res", o.faults.wrong_res, "answer the challenge wrongly, over the right SAs")->group(faults);
    app.add_option("--answer-as", o.faults.answer_as, "answer the challenge with this private identity")
        ->type_name("IMPI")
        ->group(faults);
    app.add_flag("--auts", o.faults.force_auts, "claim a sequence number failure once")->group(faults);
    app.add_flag("--no-esp", o.faults.no_esp, "take the challenge and never answer it")->group(faults);
    app.add_flag("--lose-200", o.faults.lose_200, "never see the 200 of a REGISTER")->group(faults);
    app.add_flag("--clear", o.faults.clear, "send the second REGISTER without ESP to the protected port")
        ->group(faults);
    app.add_option("--copies", o.copies,
                   "send every request other than REGISTER and ACK N times at once: a storm of retransmissions")
        ->check(CLI::Range(1U, 10000U))
        ->type_name("N")
        ->group(faults);
    app.add_option("--bid-down", o.faults.bid_down,
                   "TS 33.226 4.2.2.3.2: 1 Security-Client altered, 2 both, 3 Security-Verify, 4 its algorithms")
        ->check(CLI::Range(0, 4))
        ->type_name("CASE")
        ->group(faults);
}

void add_common_options(CLI::App& app, Options& o) {
    app.add_option("--expect", o.expect,
                   "succeed when this comes instead: a status (403) or a reason (timeout, autn-mac, kernel, …)")
        ->type_name("WHAT");
    app.add_option("--log", o.log, "write every message in and out as lines of JSON")->type_name("FILE");
    app.add_flag("--json", o.json, "print events as lines of JSON instead of text");
    app.add_flag("--quiet", o.quiet, "print nothing but the verdict");
    app.set_config("--config", "", "read options from a TOML or INI file")->type_name("FILE");
}

void add_load_options(CLI::App& app, Options& o) {
    app.add_option("--count", o.count, "this many phones in one process: user i is gmcore's i-th generated user")
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--rate", o.rate, "with --count: phones, messages or calls started per second")
        ->type_name("R")
        ->capture_default_str();
    app.add_option("--addresses", o.addresses, "spread the phones over N addresses from the first on, as 10.1.0.2+16")
        ->type_name("ADDR+N");
    app.add_option("--port-base", o.port_base, "with --count: phone i of an address uses the 8 ports from PORT+8·i on")
        ->type_name("PORT")
        ->capture_default_str();
    app.add_option("--hold", o.hold, "stay registered this long before deregistering")
        ->type_name("S")
        ->capture_default_str();
    app.add_flag("--commands", o.commands,
                 "with --count: once registered, obey lines on standard input until it ends: reregister, challenge "
                 "(gmcore --steer challenges it), message (from each phone to the next)");
    app.add_option("--csv", o.csv,
                   "with --count: write each second as a line: seconds,phase,started,ok,failed,per_second")
        ->type_name("FILE");
    app.add_flag("--no-deregister", o.no_deregister, "leave without deregistering");
}

void add_times(CLI::App& app, Options& o, const char* what) {
    app.add_option("--times", o.times, what)->type_name("N")->capture_default_str();
}

constexpr const char* kExamples =
    "EXAMPLES\n"
    "  gmue register --gateway 10.0.0.1\n"
    "      the first generated user of gmcore, over UDP, by ipsec-3gpp\n"
    "  gmue register --gateway '[2001:db8::1]:5060' --register-over tcp --offer hmac-sha-1-96/aes-cbc\n"
    "  gmue message --gateway 10.0.0.1 --to sip:alice@example.org --text hello\n"
    "  gmue run --gateway 10.0.0.1 --index 1        commands on standard input, events on standard output\n"
    "  gmue register --gateway 10.0.0.1 --count 1000 --rate 100 --hold 10\n"
    "  gmue call --gateway 10.0.0.1 --profile samsung        offers, SPIs and ports as that phone has them\n"
    "  gmue call --gateway 10.0.0.1 --count 100 --rate 20 --times 10 --seconds 2 --csv calls.csv\n"
    "      fifty phones call fifty others ten times each\n"
    "  gmue register --gateway 10.0.0.1 --bid-down 4 --expect 494\n"
    "  gmue register --gateway 127.0.0.1:5060 --security none        straight at gmcore\n"
    "  gmue register --gateway 10.0.0.1 --security tls --impi rcs@example.org --password secret --tls-ca ca.pem\n\n"
    "EXIT STATUS\n"
    "  0 it worked, or what --expect names came; 1 it did not; 2 the phone could not be set up here (usage, ports,\n"
    "  no XFRM in the kernel).\n\n"
    "The phone programs SAs and policies of the network namespace that it runs in (CAP_NET_ADMIN), and takes them\n"
    "away when it ends. Run it with 'ip netns exec' beside a gateway on the same machine.";

}  // namespace

void add_options(CLI::App& app, Options& o) {
    add_phone_options(app, o);
    add_profile_option(app, o);
    add_protection_options(app, o);
    add_nat_options(app, o);
    add_call_options(app, o);
    add_fault_options(app, o);
    add_common_options(app, o);
    app.require_subcommand(1);
    app.fallthrough();
    auto* reg = app.add_subcommand("register", "register, hold, deregister");
    add_load_options(*reg, o);
    app.add_subcommand("deregister", "register and deregister, and judge the latter");
    auto* again = app.add_subcommand("reregister", "register, re-register over the SAs, deregister");
    again->add_option("--times", o.times, "re-register this often")->capture_default_str();
    auto* message = app.add_subcommand(
        "message", "register and send a MESSAGE; without --to a second phone registers and receives it");
    message->add_option("--to", o.to, "who gets it")->type_name("URI");
    message->add_option("--text", o.text, "what it says")->capture_default_str();
    add_load_options(*message, o);
    add_times(*message, o, "with --count: each phone sends this many, to the next one or --to");
    auto* call = app.add_subcommand("call", "register and call; without --to a second phone registers and answers");
    call->add_option("--to", o.to, "who is called")->type_name("URI");
    call->add_option("--seconds", o.seconds, "how long to talk")->capture_default_str();
    add_load_options(*call, o);
    add_times(*call, o, "with --count: every other phone calls this often, the next one or --to");
    auto* run = app.add_subcommand(
        "run", "register, stay, answer what comes, obey commands on standard input, print events as JSON");
    run->add_flag("--stay", o.stay, "go on when standard input ends (else that means: deregister and quit)");
    run->footer(
        "COMMANDS on standard input\n"
        "  register | reregister [challenge] | deregister      'challenge' asks gmcore --steer for a challenge\n"
        "  sms CENTRE-URI NUMBER TEXT                          short message over IP (TS 24.341)\n"
        "  subscribe                                           to its own reg event; NOTIFY is printed as it comes\n"
        "  message URI TEXT | options URI | call URI [SECONDS] | hangup | cancel\n"
        "  hold | resume | update [DIRECTION]                  re-INVITE, UPDATE in the standing call\n"
        "  status | wait SECONDS | quit                        quit leaves without deregistering\n"
        "  begin COMMAND                                       does not wait for the end of that command\n"
        "  fault wrong-ik|wrong-res|auts|no-esp|lose-200|made-up-tag|none  misbehave from the next REGISTER (or request) on\n"
        "  expires SECONDS                                     what the next REGISTERs ask for");
    for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) sub->fallthrough();
    app.footer(kExamples);
}

}  // namespace gmgate::peers
