// Fuzz target: the whole register flow with the fake kernel, driven by a byte string that is read as a script of
// events: REGISTERs of several phones over every kind of flow and with wrong headers, answers of the core, refusals of
// the kernel, held kernel calls, time. What must hold after each of them is in `check`; a broken invariant ends the
// process.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "base/log.h"
#include "tests/conformance/register_world.h"
#include "tests/support/own_network.h"

namespace {

using namespace gmgate;
using namespace gmgate::test;

constexpr const char* kCk = "b40ba9a3c58b2a05bbf0d987b21bf8cb";
constexpr const char* kIk = "f769bcd751044604127672711c6d3441";
constexpr const char* kNonce = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=";
constexpr std::size_t kEvents = 14;

/// Octets of the input, zeros behind its end.
class Script {
public:
    Script(const unsigned char* data, std::size_t size) : data_(data), size_(size) {}
    unsigned next() { return at_ < size_ ? data_[at_++] : 0U; }
    unsigned below(unsigned n) { return next() % n; }
    bool is_over() const { return at_ >= size_; }

private:
    const unsigned char* data_;
    std::size_t size_, at_ = 0;
};

/// Ways to spoil a REGISTER, as bits.
enum Flaw : unsigned {
    kNone = 0,
    kOtherVerify = 1,
    kNoVerify = 2,
    kOtherClient = 4,
    kNoClient = 8,
    kOtherIdentity = 16,
    kNoAuthorization = 32,
    kNoResponse = 64,
    kSyntax = 128,
};
/// Flaws that must not pass over a set of SAs, whatever the core says.
constexpr unsigned kFatalOverSet = kOtherVerify | kNoVerify | kOtherIdentity | kNoAuthorization | kSyntax;

class Play {
public:
    Play(Script& script, daemon::Config config)
        : script_(script), world_(std::move(config), std::chrono::milliseconds{2}) {}

    void run() {
        for (std::size_t i = 0; i < kEvents && !script_.is_over(); ++i) {
            event();
            check();
        }
        is_holding_ = false;
        world_.kernel.release();
        world_.settle();
        check();
        // Everything ends by itself, and nothing is left.
        for (const auto& [name, flow] : connections_) world_.parts().transports.close(flow.connection, true);
        world_.loop.run_for(std::chrono::milliseconds{2});
        world_.kernel.clear_failures();
        for (int i = 0; i < 4; ++i) world_.wait(std::chrono::hours{24 * 30});
        allowed_.clear();
        before_ = snapshot();
        check();
        require(world_.parts().table.set_count() == 0 && world_.parts().table.registration_count() == 0,
                "everything ends by itself");
    }

private:
    [[noreturn]] void broken(const std::string& what) {
        std::fprintf(stderr, "invariant broken: %s\n%s", what.c_str(), story_.c_str());
        std::abort();
    }
    void require(bool holds, const std::string& what) {
        if (!holds) broken(what);
    }
    void tell(const std::string& line) { story_ += "  " + line + "\n"; }

    // ------------------------------------------------------------------------------------------
    // events

    void event() {
        switch (script_.below(13)) {
            case 0:
            case 1:
            case 2:
                unprotected();
                break;
            case 3:
            case 4:
            case 5:
                over_set(true);
                break;
            case 6:
                over_set(false);
                break;
            case 7:
            case 8:
                over_tls();
                break;
            case 12:
                over_tls_twice();
                break;
            case 9: {
                const auto ahead = script_.below(8);
                world_.kernel.clear_failures();
                world_.kernel.fail_message(world_.kernel.messages() + 1 + ahead,
                                           script_.below(2) == 0 ? ENOMEM : EEXIST);
                tell(fmt::format("the kernel will refuse message {} from here", ahead + 1));
                break;
            }
            case 10:
                is_holding_ = !is_holding_;
                tell(is_holding_ ? "the kernel answers later" : "the kernel answers again");
                if (is_holding_) world_.kernel.hold();
                else world_.kernel.release();
                world_.settle();
                break;
            default: {
                constexpr std::chrono::seconds kSteps[] = {std::chrono::seconds{5}, std::chrono::seconds{130},
                                                           std::chrono::seconds{245}, std::chrono::seconds{4000}};
                const auto step = kSteps[script_.below(4)];
                tell(fmt::format("{} s pass", step.count()));
                world_.wait(step);
                before_ = snapshot();  // time may end anything
                time_passed_ = is_holding_;
                break;
            }
        }
    }

    static std::string impi_of(unsigned phone) { return fmt::format("user{}@example", phone); }
    static Address address_of(unsigned place) {
        constexpr const char* kPlaces[] = {"127.0.0.9", "127.0.0.10", "127.0.0.66"};
        return *Address::parse(kPlaces[place % 3]);
    }
    static std::string offer(unsigned variant) {
        const auto ipsec = fmt::format(
            "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c={};spi-s={};port-c={};port-s={}", 70000 + 2 * variant,
            70001 + 2 * variant, 7000 + 2 * (variant % 5), variant % 2 == 0 ? 1358 : 1360);
        switch (variant % 7) {
            case 5:
                return "tls";
            case 6:
                return "digest";
            default:
                return variant % 3 == 0
                           ? ipsec + ", tls"
                           : "ipsec-3gpp;alg=hmac-md5-96;ealg=null;" + ipsec.substr(ipsec.find("spi-c")) + ", " + ipsec;
        }
    }

    struct Draft {
        std::string impi, client, verify, instance, expires = "3600";
        unsigned flaws = kNone;
    };
    void spoil(Draft& draft) {
        if (draft.flaws & kOtherVerify)
            draft.verify = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=1;spi-s=2;port-c=3;port-s=4";
        if (draft.flaws & kNoVerify) draft.verify.clear();
        if (draft.flaws & kOtherClient) draft.client = offer(script_.next());
        if (draft.flaws & kNoClient) draft.client.clear();
        if (draft.flaws & kOtherIdentity) draft.impi = draft.impi == impi_of(0) ? impi_of(1) : impi_of(0);
        if (draft.flaws & kSyntax) draft.client = "ipsec-3gpp;;spi-c=x";
    }
    std::string text_of(const Draft& draft, const sip::Flow& flow) {
        ++count_;
        std::string text = fmt::format(
            "REGISTER sip:ims.example SIP/2.0\r\nVia: SIP/2.0/UDP {}:1358;branch=z9hG4bKf{}\r\nMax-Forwards: 70\r\nFrom: <sip:{}>;tag=a\r\n"
            "To: <sip:{}>\r\nCall-ID: c{}\r\nCSeq: {} REGISTER\r\nContact: <sip:{}:1358>;expires={}{}\r\n",
            flow.remote.address.to_string(), count_, draft.impi, draft.impi, draft.impi, count_,
            flow.remote.address.to_string(), draft.expires,
            draft.instance.empty() ? "" : ";+sip.instance=\"" + draft.instance + "\"");
        const bool has_response = (draft.flaws & kNoResponse) == 0;
        if ((draft.flaws & kNoAuthorization) == 0)
            text += fmt::format(
                "Authorization: Digest username=\"{}\",realm=\"ims\",nonce=\"{}\",uri=\"sip:ims\",response=\"{}\",integrity-protected=\"yes\"\r\n",
                draft.impi, has_response ? kNonce : "", has_response ? "6629fae49393a05397450978507c4ef1" : "");
        if (!draft.client.empty()) text += "Security-Client: " + draft.client + "\r\n";
        if (!draft.verify.empty()) text += "Security-Verify: " + draft.verify + "\r\n";
        return text + "Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path\r\nContent-Length: 0\r\n\r\n";
    }

    /// What the core will say to the next request; 0: nothing.
    int core_decides(const std::string& contact) {
        const auto word = script_.next();
        const int status = word % 16 == 15 ? 0 : std::array{401, 200, 401, 200, 403, 200}[word % 6];
        std::string answer;
        if (status == 401) {
            const bool keys = (word & 64) == 0;
            answer = fmt::format(
                "SIP/2.0 401 Unauthorized\nWWW-Authenticate: Digest realm=\"ims\", nonce=\"{}\", algorithm=AKAv1-MD5{}",
                kNonce, keys ? fmt::format(", CK=\"{}\", ik={}\nX-Echo: {}", kCk, kIk, kIk) : "");
        } else if (status == 200) {
            answer = "SIP/2.0 200 OK" + ((word & 128) != 0 ? std::string{} : "\nContact: " + contact);
        } else if (status != 0) {
            answer = "SIP/2.0 403 Forbidden";
        }
        world_.core_answers.clear();
        world_.core_answers.push_back(answer);
        return status;
    }

    /// Sends it; `may_change`: the one private identity whose registrations may change, "" for none.
    void send(Draft draft, const sip::Flow& flow, const std::string& may_change, const std::string& over) {
        spoil(draft);
        const int core =
            core_decides(fmt::format("<sip:{}:1358>;expires={}", flow.remote.address.to_string(), draft.expires));
        tell(fmt::format("{} REGISTER of {} from {}, flaws {:#x}, core says {}", over, draft.impi,
                         flow.remote.to_string(), draft.flaws, core));
        if (!may_change.empty()) allowed_.insert(may_change);
        const auto seen = world_.core_saw.size();
        auto transaction = world_.start(text_of(draft, flow), flow);
        if (!transaction) return;
        const bool over_sa = over == "temporary" || over == "established" || over == "old";
        transaction->on_respond = [this](RecordedTransaction& t) { answering(t); };
        transactions_.push_back(transaction);
        world_.settle();
        const bool asked = world_.core_saw.size() > seen;
        const auto status = transaction->responses.empty() ? 0 : std::stoi(transaction->responses.back().substr(8, 3));
        tell(fmt::format("  answered {}", status));
        if (over_sa && (draft.flaws & kFatalOverSet) != 0) {
            require(!asked, "a REGISTER that fails a check is not forwarded");
            require(status == 0 || status >= 400, "a REGISTER that fails a check is refused");
        }
        if (over == "temporary" && (draft.flaws & (kOtherClient | kNoClient)) != 0 && draft.client != last_client_)
            require(status != 200, "another Security-Client is never accepted");
        // So does one that the core leaves without an answer: it must hear of that.
        if (over == "temporary" && asked && core == 0) proved_at_.insert(flow.remote.address.to_string());
        if (status < 200 || status >= 300) return;
        require(asked && core == 200, "a 2xx is the core's");
        // Whoever has just proved itself with SPIs or ports of another phone at its address takes its place.
        if (over == "temporary") proved_at_.insert(flow.remote.address.to_string());
    }

    /// Whether that registration is at an address where another phone has proved itself since the last check.
    bool is_displaced(const std::string& was) const {
        return std::ranges::any_of(
            proved_at_, [&](const std::string& address) { return was.find("sip:" + address + ":") != was.npos; });
    }

    void unprotected() {
        const auto phone = script_.below(3), place = script_.below(3);
        Draft draft{.impi = impi_of(phone),
                    .client = offer(script_.next()),
                    .verify = "",
                    .instance = script_.below(4) == 0 ? "b" : "",
                    .flaws = script_.next() & (kOtherVerify | kNoClient | kNoAuthorization | kNoResponse | kSyntax)};
        if (script_.below(4) != 0) draft.flaws &= kNoResponse;
        send(draft,
             {sip::Transport::udp, {*Address::parse("127.0.0.1"), Port{5060}}, {address_of(place), Port{5060}}, {}, {}},
             "", "unprotected");
    }

    void over_set(bool is_newest) {
        const auto owners = world_.owners();
        if (owners.empty()) return;
        const auto& owner = is_newest ? owners.back() : owners[script_.next() % owners.size()];
        const auto& set = *owner.set;
        Draft draft{.impi = owner.challenge ? owner.challenge->impi.value : owner.registration->key.impi.value,
                    .client = set.security_client.text(),
                    .verify = set.security_server.text(),
                    .instance = owner.challenge ? owner.challenge->contact.instance : owner.registration->key.instance,
                    .flaws = script_.next()};
        last_client_ = draft.client;
        const auto how = script_.next();
        if (how % 4 != 0) draft.flaws = 0;
        if (how % 8 == 7) draft.expires = "0";
        if (how % 8 == 6) draft.client = offer(script_.next());
        if (how % 8 == 6 && owner.challenge) draft.flaws |= kOtherClient;
        auto flow = RegisterWorld::over(set);
        if ((how & 16) != 0) flow.transport = sip::Transport::tcp;
        if ((how & 96) == 96) {  // a mark that is not this set's: nobody's message
            flow.mark = Mark{set.number.value + 1};
            draft.flaws |= kOtherVerify;
        }
        const auto identity = draft.impi;
        send(draft, flow, identity, std::string(to_string(set.state)));
    }

    /// Two users at once over one connection that is not bound yet: it may end up with one of them.
    void over_tls_twice() {
        const auto name = 4 + script_.below(2);
        if (!connections_.contains(name))
            connections_[name] =
                world_.tls_connection({address_of(name), Port{static_cast<std::uint16_t>(40000 + name)}});
        const auto flow = connections_[name];
        if (!world_.parts().transports.is_open(flow.connection)) return;
        tell("two users at once over one TLS connection");
        world_.core_answers.clear();
        for (const auto phone : {0U, 1U}) {
            allowed_.insert(impi_of(phone));
            world_.core_answers.push_back(
                fmt::format("SIP/2.0 200 OK\nContact: <sip:{}:1358>;expires=3600", flow.remote.address.to_string()));
            if (auto transaction = world_.start(
                    text_of({.impi = impi_of(phone), .client = "", .verify = "", .instance = ""}, flow), flow))
                transactions_.push_back(transaction);
        }
        world_.settle();
    }

    void over_tls() {
        const auto name = script_.below(4);
        if (!connections_.contains(name)) {
            const Endpoint phone{address_of(script_.next()), Port{static_cast<std::uint16_t>(40000 + name)}};
            connections_[name] = world_.tls_connection(phone);
        }
        const auto flow = connections_[name];
        if (!world_.parts().transports.is_open(flow.connection)) {
            connections_.erase(name);
            return;
        }
        const auto owner = world_.parts().table.owner_of(flow);
        Draft draft{.impi = impi_of(script_.below(3)),
                    .client = script_.below(2) == 0 ? "" : offer(script_.next()),
                    .verify = script_.below(2) == 0 ? "" : "tls",
                    .instance = "",
                    .flaws = script_.next()};
        if (script_.below(3) != 0) draft.flaws &= kNoResponse;
        std::string may_change;
        if (owner.registration) {
            draft.instance = script_.below(8) == 0 ? "other" : owner.registration->key.instance;
            may_change = owner.registration->key.impi.value;
            if (script_.below(3) != 0) {
                draft.impi = may_change;
                draft.client = owner.registration->tls->security_client.to_string();
                draft.verify = owner.registration->tls->security_verify.to_string();
            }
            if (script_.below(8) == 0) draft.expires = "0";
        } else if ((draft.flaws & (kNoResponse | kNoAuthorization)) == 0) {
            may_change = (draft.flaws & kOtherIdentity) == 0 ? draft.impi
                         : draft.impi == impi_of(0)          ? impi_of(1)
                                                             : impi_of(0);
        }
        send(draft, flow, may_change, owner.registration ? "bound TLS" : "unbound TLS");
    }

    // ------------------------------------------------------------------------------------------
    // invariants

    /// At the moment that an answer leaves.
    void answering(RecordedTransaction& transaction) {
        const auto& flow = transaction.flow();
        const auto own = world_.parts().accesses.is_protected(flow.local) && flow.transport == sip::Transport::udp;
        if (own)
            require(world_.parts().accesses.is_protected(transaction.reply_flow().local),
                    "what came over SAs is answered over SAs");
        require(transaction.responses.empty(), "one final answer");
    }

    /// Everything that is known of every registration, to see whether somebody changed it.
    std::map<std::string, std::string> snapshot() {
        std::map<std::string, std::string> all;
        world_.parts().table.for_each([&](daemon::Registration& r) {
            std::ostringstream out;
            out << r.token << ' ' << r.generation << ' ' << r.ended << ' ' << r.contact_uri << ' '
                << r.expires.time_since_epoch().count();
            for (const auto& set : r.sets)
                out << ' ' << set->number.value << to_string(set->state) << set->in_use
                    << set->expires.time_since_epoch().count();
            if (r.tls) out << " tls " << r.tls->flow.connection.value;
            all[r.key.impi.value + '/' + r.key.instance + '/' + r.key.reg_id] = out.str();
        });
        return all;
    }

    void check() {
        auto& table = world_.parts().table;
        const auto owners = world_.owners();
        std::set<std::pair<Impi, Address>> challenged;
        for (const auto& owner : owners)
            if (owner.challenge)
                require(challenged.insert({owner.challenge->impi, owner.set->parameters.ue}).second,
                        "one temporary set per (IMPI, UE address)");
        std::map<std::uint64_t, Impi> users;
        table.for_each([&](daemon::Registration& r) {
            if (r.tls)
                require(users.emplace(r.tls->flow.connection.value, r.key.impi).first->second == r.key.impi,
                        "one TLS connection, one private identity (C-49)");
        });
        require(owners.size() == table.set_count(), "every set has its number");

        for (const auto& transaction : transactions_)
            for (const auto& response : transaction->responses) {
                auto lower = response;
                for (auto& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
                require(lower.find(kCk) == std::string::npos && lower.find(kIk) == std::string::npos,
                        "no key in an answer:\n" + response);
            }
        transactions_.clear();
        for (const auto& seen : world_.core_saw) {
            require(seen.find("Security-") == std::string::npos && seen.find("sec-agree") == std::string::npos,
                    "no security header reaches the core:\n" + seen);
            require(seen.find("integrity-protected") == seen.rfind("integrity-protected"),
                    "the phone's indicator is gone:\n" + seen);
        }
        world_.core_saw.clear();

        for (unsigned phone = 0; phone < 3; ++phone)
            for (const auto& record : world_.parts().trace.of(Impi{impi_of(phone)}))
                for (const auto& verdict : record.checks)
                    require(verdict.passed || record.answer >= 400,
                            "a failed check is never answered with 2xx: " + verdict.check);

        if (world_.kernel.held() > 0) return;
        const auto after = snapshot();
        if (!time_passed_)
            for (const auto& [key, was] : before_) {
                const auto at = after.find(key);
                const auto impi = key.substr(0, key.find('/'));
                if (!allowed_.contains(impi) && !(at == after.end() && is_displaced(was)))
                    require(at != after.end() && at->second == was,
                            "a live registration changed by a REGISTER from elsewhere: " + key + "\n  before " + was +
                                "\n  after " + (at == after.end() ? "gone" : at->second));
            }
        before_ = after;
        allowed_.clear();
        proved_at_.clear();
        time_passed_ = false;

        check_kernel(owners);
    }

    void check_kernel(const std::vector<daemon::FlowOwner>& owners) {
        std::set<xfrm::SaId> owned;
        for (const auto& owner : owners)
            for (const auto& sa : xfrm::four_sas(owner.set->parameters)) {
                require(owned.insert(sa.id).second, "an SA has one owner");
                require(world_.kernel.sas().contains(sa.id),
                        fmt::format("a set in the table has its SAs in the kernel: set {}", owner.set->number.value));
            }
        // What the kernel refused to delete keeps its SPIs and is tried again.
        const auto leftovers = world_.parts().sets.leftovers();
        require(world_.parts().spis.in_use() == 2 * (owners.size() + leftovers),
                fmt::format("{} SPIs in use for {} sets and {} leftovers", world_.parts().spis.in_use(), owners.size(),
                            leftovers));
        require(world_.kernel.sas().size() <= owned.size() + 4 * leftovers,
                "no SA in the kernel without an owner but the leftovers");
        if (leftovers == 0)
            require(world_.kernel.sas().size() == owned.size(),
                    fmt::format("{} SAs in the kernel, {} with an owner", world_.kernel.sas().size(), owned.size()));
    }

    Script& script_;
    RegisterWorld world_;
    std::map<unsigned, sip::Flow> connections_;
    std::vector<std::shared_ptr<RecordedTransaction>> transactions_;
    std::map<std::string, std::string> before_;
    std::set<std::string> allowed_;
    std::set<std::string> proved_at_;  // addresses
    std::string story_, last_client_;
    unsigned count_ = 0;
    bool is_holding_ = false, time_passed_ = false;
};

// Before the first input, whatever runs this target.
[[maybe_unused]] const bool is_alone = (test::enter_own_network(), true);

daemon::Config config_of(unsigned word) {
    auto config = RegisterWorld::usual_config();
    auto& interface = config.sip_interfaces.front();
    constexpr daemon::SecAgreePref kPrefs[] = {daemon::SecAgreePref::ipsec3gpp, daemon::SecAgreePref::ipsec3gpp_tls,
                                               daemon::SecAgreePref::tls_ipsec3gpp, daemon::SecAgreePref::tls};
    interface.sec_agree_pref = kPrefs[word % 4];
    if ((word & 4) != 0) interface.security_server = daemon::SecurityServerMode::list;
    interface.strict_refresh = (word & 8) != 0;
    interface.strict_collision = (word & 16) != 0;
    if ((word & 32) != 0) interface.no_security_client = daemon::NoSecurityClient::forward;
    interface.server_initiated = (word & 128) != 0;
    return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    if (size == 0) return 0;
    log::set_level(log::Level::error);
    Script script(data, size);
    const auto config = config_of(script.next());
    Play play(script, config);
    play.run();
    return 0;
}
