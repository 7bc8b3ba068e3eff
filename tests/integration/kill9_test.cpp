// The campaign of kill -9: again and again, at random moments under load, and at the moments that hurt. After each
// restart the kernel holds exactly the SAs that registrations need, and nobody registers again whose own exchange was
// not cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "tests/integration/tls_lab.h"
#include "tests/support/tls_client.h"

using namespace gmgate::test;

namespace {

constexpr std::size_t kLoadPhones = 16;  ///< that register in a round
constexpr std::size_t kFirstLoadUser = 20;
constexpr int kFirstLoadAddress = 3, kLoadAddresses = 8;

unsigned long number_from(const char* name, unsigned long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::strtoul(text, nullptr, 10) : otherwise;
}

/// What an SQL statement on the store says, a line for each row, columns separated by '|'. Beside a running gateway as
/// well.
std::vector<std::string> ask_store(const Lab& lab, const std::string& sql) {
    std::istringstream text(
        run_program({.command = {"sqlite3", "-cmd", ".timeout 5000", lab.folder() + "/registrations.db", sql}}));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
}

using Spis = std::set<std::uint32_t>;

Spis spis_in_kernel(const Lab& lab) {
    Spis spis;
    for (const auto& sa : list_sas(lab.network.gw)) spis.insert(sa.spi);
    return spis;
}

Spis spis_in_store(const Lab& lab) {
    Spis spis;
    for (const char* column : {"spi_uc", "spi_us", "spi_pc", "spi_ps"})
        for (const auto& line : ask_store(lab, "SELECT " + std::string(column) + " FROM sa_set"))
            spis.insert(static_cast<std::uint32_t>(std::stoul(line)));
    return spis;
}

/// "registrations=12" of a line of the log; nullopt when it is not there.
std::optional<std::size_t> value_in(const std::string& line, const std::string& key) {
    const auto at = line.find(" " + key + "=");
    if (at == std::string::npos) return {};
    return std::strtoul(line.c_str() + at + key.size() + 2, nullptr, 10);
}

/// Programs that stand still while the gateway is away and looked at: what it adopted is compared when nobody changes
/// it.
class Standstill {
public:
    void stop(Program& program) {
        if (program.is_running() && ::kill(program.pid(), SIGSTOP) == 0) stopped_.push_back(&program);
    }
    void go_on() {
        for (auto* program : stopped_) ::kill(program->pid(), SIGCONT);
        stopped_.clear();
    }

private:
    std::vector<Program*> stopped_;
};

enum class Moment { random, half_message, half_record, full_write_queue, open_invite };
constexpr Moment kMoments[] = {Moment::random, Moment::half_message, Moment::half_record, Moment::full_write_queue,
                               Moment::open_invite};
constexpr const char* kMomentNames[] = {"random", "half a SIP message", "half a TLS record", "full write queue",
                                        "open INVITE"};

struct Counts {
    std::size_t kills = 0, adopted = 0, sas_adopted = 0, stale_removed = 0, load_registered = 0, load_cut = 0;
    std::size_t refreshed = 0, messages = 0;
    std::map<std::string, std::size_t> registered_again;  ///< by reason
    std::map<std::string, std::size_t> moments;
};

const std::string kWhole =
    "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 10.1.0.2:5101;branch=z9hG4bKhalf\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n"
    "To: <sip:a@b>\r\nCall-ID: half\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n";

class Campaign {
public:
    Campaign(std::size_t rounds, std::mt19937::result_type seed)
        : random_(seed), tls_(lab_options(rounds)), lab_(*tls_.lab), client_(0x0304) {
        // Small buffers in the kernel, so that the gateway's own queue is the one that fills.
        lab_.network.gw.set_sysctl("net/ipv4/tcp_wmem", "4096 8192 16384");
        lab_.network.ue.set_sysctl("net/ipv4/tcp_rmem", "4096 8192 16384");
        std::string addresses;
        for (int i = 0; i < kLoadAddresses; ++i)
            addresses += "address add 10.1.0." + std::to_string(kFirstLoadAddress + i) + "/24 dev access0\n";
        lab_.network.ue.ip_batch(addresses);
        add(udp4_, 0, false, false);
        add(udp6_, 1, true, false);
        add(tcp4_, 2, false, true);
        add(tcp6_, 3, true, true);
        add(tls4_, 4, false, false, tls_.phone_arguments("tls", "1.3"));
        add(tls6_, 5, true, false, tls_.phone_arguments("tls", "1.2"));
        add(churn4_, 6, false, false);
        add(churn6_, 7, true, true);
        add(caller_, 8, false, false);
        add(callee_, 9, true, false, {"--answer-after", "4"});
        add(sender_, 10, true, true);
        add(stopped_, 11, false, true);
        add(quiet_, 12, false, false);
    }

    void round(std::size_t number, Moment moment) {
        INFO("round " << number << ": " << std::string(kMomentNames[static_cast<int>(moment)]));
        Program load({.command = load_command(number), .name = "load", .network = &lab_.network.ue});
        const auto load_starts = load.line_count();
        std::vector<std::size_t> churn_starts;
        for (auto* phone : {churn4_.get(), churn6_.get()}) {
            churn_starts.push_back(phone->mark());
            for (const char* command :
                 {"reregister", "reregister challenge", "deregister", "register", "reregister challenge", "reregister"})
                phone->program().write_line(command);
        }
        for (int i = 0; i < 3; ++i)
            for (std::size_t a = 0; a < talkers().size(); ++a)
                talkers()[a]->start_message(talkers()[(a + 1) % talkers().size()]->impu(), unique_word("load-"));

        std::unique_ptr<RawPeer> half_message;
        std::unique_ptr<TlsClient::Connection> half_record;
        std::size_t call_starts = 0, sender_starts = 0;
        Standstill silent, aside;
        if (moment == Moment::half_message) half_message = send_half_message();
        if (moment == Moment::half_record) half_record = send_half_record();
        if (moment == Moment::full_write_queue) sender_starts = fill_write_queue(silent);
        if (moment == Moment::open_invite) {
            call_starts = caller_->mark();
            caller_->program().write_line("call " + callee_->impu() + " 0.2");
            await(*caller_, "call_ringing", call_starts);
        }
        // The moment is what this test is about; nothing waits for it.
        const auto delay = std::chrono::milliseconds(std::uniform_int_distribution<>(0, 1500)(random_));
        std::this_thread::sleep_for(delay);

        const auto registered_before = registered_in_load(load, load_starts);
        REQUIRE(lab_.gateway().is_running());
        lab_.kill_gateway();
        ++counts_.kills;
        ++counts_.moments[kMomentNames[static_cast<int>(moment)]];
        for (auto* program : {&load, &churn4_->program(), &churn6_->program()}) aside.stop(*program);
        skip_core_log();
        lab_.start_gateway();
        check_adopted(registered_before);
        aside.go_on();
        silent.go_on();

        // The kernel ended the connections with their process.
        if (half_message)
            CHECK(eventually([&] {
                return lab_.network.ue
                    .run("ss -Htn state established src " + Access{}.ue_port(quiet_->first().at("port_uc")))
                    .empty();
            }));
        if (half_record) CHECK(half_record->is_ended_by_peer());
        half_message.reset();
        half_record.reset();
        if (moment == Moment::open_invite) check_call(call_starts);
        if (moment == Moment::full_write_queue) {
            for (std::size_t i = 0; i < kLongMessages; ++i)
                sender_starts = await(*sender_, "message_sent", sender_starts);
            drain(*stopped_);
        }
        check_phones(churn_starts);
        end_load(load, load_starts);
        std::printf("round %zu (%s, after %lld ms): adopted so far %zu, registered again %zu\n", number,
                    kMomentNames[static_cast<int>(moment)], static_cast<long long>(delay.count()), counts_.adopted,
                    again());
        std::fflush(stdout);
    }

    void print(std::size_t rounds) const {
        std::printf(
            "kill -9 campaign: %zu rounds, %zu kills, %zu registrations adopted in all, %zu SAs in the kernel compared, %zu stale SAs removed\n",
            rounds, counts_.kills, counts_.adopted, counts_.sas_adopted, counts_.stale_removed);
        std::printf(
            "  load: %zu registrations, %zu exchanges cut; %zu re-registrations and de-registrations beside them; %zu messages after restarts arrived\n",
            counts_.load_registered, counts_.load_cut, counts_.refreshed, counts_.messages);
        for (const auto& [moment, count] : counts_.moments) std::printf("  killed at %s: %zu\n", moment.c_str(), count);
        for (const auto& [why, count] : counts_.registered_again)
            std::printf("  registered again because %s: %zu\n", why.c_str(), count);
        std::fflush(stdout);
    }

private:
    static constexpr std::size_t kLongMessages = 60, kLongMessage = 2500;

    static TlsLabOptions lab_options(std::size_t rounds) {
        TlsLabOptions options;
        options.users = kFirstLoadUser + rounds * kLoadPhones;
        options.log_level = "info";
        options.more_sections = "[limits]\nchallenges-per-address = 256\nsets-per-address = 4096\n";
        return options;
    }

    void add(std::unique_ptr<Phone>& phone, std::size_t user, bool is_v6, bool is_tcp,
             std::vector<std::string> more = {}) {
        // What a kill cuts is given up soon, so that a round does not wait half a minute for it.
        more.insert(more.end(), {"--t1", "0.5", "--timeout", "8", "--local", std::string(Access{is_v6, is_tcp}.ue())});
        phone = std::make_unique<Phone>(
            lab_, PhoneOptions{.user = user, .is_v6 = is_v6, .is_tcp = is_tcp, .arguments = more});
        phone->demand_registered();
    }

    std::vector<Phone*> talkers() const {
        return {udp4_.get(), udp6_.get(), tcp4_.get(), tcp6_.get(), tls4_.get(), tls6_.get()};
    }

    std::vector<std::string> load_command(std::size_t number) const {
        const auto ports = 20000 + number * (kLoadPhones / kLoadAddresses) * 8;
        return {lab_.programs().gmue,
                "register",
                "--gateway",
                Network::kAccess4,
                "--addresses",
                "10.1.0." + std::to_string(kFirstLoadAddress) + "+" + std::to_string(kLoadAddresses),
                "--index",
                std::to_string(kFirstLoadUser + number * kLoadPhones),
                "--count",
                std::to_string(kLoadPhones),
                "--rate",
                "12",
                "--hold",
                "3600",
                "--no-deregister",
                "--port-base",
                std::to_string(ports),
                "--t1",
                "0.5",
                "--timeout",
                "8",
                "--json"};
    }

    /// Returns the place after the event.
    std::size_t await(Phone& phone, const std::string& event, std::size_t from) {
        return phone.program().wait_for_text("\"event\":\"" + event + "\"", from).index + 1;
    }
    /// All earlier commands are done.
    void drain(Phone& phone) {
        phone.command(
            "status", [](const nlohmann::json& event) { return event.value("event", "") == "status"; },
            std::chrono::minutes(3));
    }

    // Over an SA: the ports are those of a phone that itself uses UDP only.
    std::unique_ptr<RawPeer> send_half_message() {
        const auto& set = quiet_->first();
        auto peer = std::make_unique<RawPeer>(lab_.network.ue, RawPeer::Kind::tcp, Access{}.ue_port(set.at("port_uc")),
                                              Access{}.gateway_port(set.at("port_ps")));
        REQUIRE(peer->connects(kPatience));
        // With one send: when the first is answered, the half is held.
        peer->send(kWhole + kWhole.substr(0, kWhole.size() / 2));
        peer->receive_until("SIP/2.0 404");  // who is sip:a@b?
        return peer;
    }

    std::unique_ptr<TlsClient::Connection> send_half_record() {
        auto connection = client_.connect(lab_.network.ue, Access{}.gateway_port(5061));
        REQUIRE(connection->handshake());
        std::string request = kWhole;
        request.replace(request.find("TCP"), 3, "TLS");
        connection->write(request);
        CHECK(connection->read_until("SIP/2.0 403").find("SIP/2.0 403") != std::string::npos);
        // A header that promises 512 octets, and less than half of them: the gateway's kernel waits for the rest.
        connection->write_raw(std::string("\x17\x03\x03\x02\x00", 5) + std::string(200, 'x'));
        CHECK(eventually([&] {
            int unacknowledged = 1;
            return ioctl(connection->fd(), SIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0;
        }));
        return connection;
    }

    // A phone reads no more; long messages for it come from the core until the kernel's buffers and more are full.
    std::size_t fill_write_queue(Standstill& silent) {
        silent.stop(stopped_->program());
        const auto from = sender_->mark(), mark = core_mark_;
        const std::string text(kLongMessage, 'q');
        for (std::size_t i = 0; i < kLongMessages; ++i)
            sender_->program().write_line("begin message " + stopped_->impu() + " " + text);
        CHECK(eventually([&] { return lab_.core_received(mark, "MESSAGE").size() > kLongMessages / 2; }));
        // What waits in the gateway's kernel for this phone; more than that waits in the gateway.
        CHECK(eventually([&] {
            std::istringstream lines(lab_.network.gw.run("ss -Htn state established"));
            std::string received, sent, local, peer;
            while (lines >> received >> sent >> local >> peer)
                if (std::stoul(sent) > 2 * kLongMessage) return true;
            return false;
        }));
        return from;
    }

    std::vector<nlohmann::json> registered_in_load(const Program& load, std::size_t from) const {
        std::vector<nlohmann::json> events;
        for (const auto& line : load.lines(from))
            if (line.starts_with('{') && line.ends_with('}') &&
                line.find("\"event\":\"registered\"") != std::string::npos)
                events.push_back(nlohmann::json::parse(line));
        return events;
    }

    void skip_core_log() { core_mark_ += lab_.core_log(core_mark_).size(); }

    /// SAs in the kernel = SAs of the rows = what the log says; everybody who had got a 200 is among them.
    void check_adopted(const std::vector<nlohmann::json>& registered_before) {
        const auto line = lab_.gateway().wait_for_text("registrations-adopted").text;
        CAPTURE(line);
        const auto registrations = value_in(line, "registrations"), sets = value_in(line, "sets"),
                   stale = value_in(line, "stale-sas-removed");
        REQUIRE((registrations && sets && stale));
        // An old set may come to its end at this very moment: asked again.
        Spis kernel, store;
        CHECK(eventually([&] {
            kernel = spis_in_kernel(lab_);
            store = spis_in_store(lab_);
            return kernel == store && count_sas(lab_.network.gw) == kernel.size();
        }));
        CHECK(kernel.size() <= 4 * *sets);
        CHECK(kernel.size() >= 4 * *registrations - 4 * 2);  // the TLS registrations have none
        if (kernel.size() != 4 * *sets)
            MESSAGE("an old set ended while it was looked at: " << kernel.size() << " SAs of " << *sets << " sets");
        for (const auto& event : registered_before)
            for (const char* spi : {"spi_uc", "spi_us", "spi_pc", "spi_ps"})
                CHECK_MESSAGE(kernel.contains(event.at(spi).get<std::uint32_t>()), event.dump());
        counts_.adopted += *registrations;
        counts_.sas_adopted += kernel.size();
        counts_.stale_removed += *stale;
    }

    void check_call(std::size_t from) {
        // The callee answers after the restart, and its 200 may find its way by the Vias alone; or the caller gives up
        // by its own timer. In either case both can call again.
        const auto ended = caller_->program().wait_for_line(
            [](const std::string& line) {
                return line.find("\"event\":\"call_ended\"") != std::string::npos ||
                       line.find("\"event\":\"call_failed\"") != std::string::npos;
            },
            "the end of the call that was ringing", from);
        MESSAGE("the call that was ringing: " << ended.text);
        callee_->program().write_line("hangup");
        drain(*callee_);
        const auto call = caller_->call(callee_->impu());
        CHECK_MESSAGE(call.value("event", "") == "call_ended", call.dump());
        callee_->program().write_line("hangup");
    }

    void check_phones(const std::vector<std::size_t>& churn_starts) {
        for (auto* phone : talkers()) drain(*phone);
        // Without a service manager nobody holds a TLS connection: its end is the end of its registration.
        for (auto* phone : {tls4_.get(), tls6_.get()})
            register_again(*phone, "its TLS connection ended with the process");
        for (auto* a : {udp4_.get(), tcp4_.get(), tls4_.get()})
            for (auto* b : {udp6_.get(), tcp6_.get(), tls6_.get()}) {
                talk(*a, *b);
                talk(*b, *a);
            }
        std::size_t index = 0;
        for (auto* phone : {churn4_.get(), churn6_.get()}) {
            drain(*phone);
            bool is_cut = false;
            for (const auto& line : phone->program().lines(churn_starts[index++])) {
                const bool has_failed = line.find("\"event\":\"register_failed\"") != std::string::npos,
                           is_done = line.find("registered\"") != std::string::npos;
                if (has_failed) is_cut = true;
                if (is_done && !has_failed) ++counts_.refreshed;
            }
            if (is_cut) register_again(*phone, "its own exchange was cut");
            talk(*phone, *udp4_);
            talk(*udp4_, *phone);
        }
        talk(*sender_, *stopped_);
        talk(*stopped_, *sender_);
        talk(*quiet_, *callee_);
        talk(*caller_, *quiet_);
        talk(*caller_, *callee_);
        talk(*callee_, *caller_);
        // Those that were in no exchange of their own: not one REGISTER since the restart.
        const auto registers = lab_.core_received(core_mark_, "REGISTER");
        for (const std::size_t user : {0U, 1U, 2U, 3U, 8U, 9U, 10U, 11U, 12U})
            for (const auto& request : registers)
                CHECK_MESSAGE(request.find(impi_of_user(user)) == std::string::npos, request);
        skip_core_log();
    }

    void register_again(Phone& phone, const std::string& why) {
        const auto event = phone.command("register", [](const nlohmann::json& e) {
            return e.value("event", "") == "registered" || e.value("event", "") == "register_failed";
        });
        CHECK_MESSAGE(event.value("event", "") == "registered", event.dump());
        ++counts_.registered_again[why];
    }

    void talk(Phone& from, Phone& to) {
        const auto word = unique_word("talk-");
        const int status = from.message(to.impu(), word);
        CHECK_MESSAGE(status == 200, from.impu() << " to " << to.impu());
        if (status != 200) return;
        to.await_message(word);
        ++counts_.messages;
    }

    void end_load(Program& load, std::size_t from) {
        const auto summary = nlohmann::json::parse(load.wait_for_text("\"phase\":\"register\"", from).text);
        counts_.load_registered += summary.at("ok").get<std::size_t>();
        counts_.load_cut += summary.at("failed").get<std::size_t>();
        load.terminate();
    }

    std::size_t again() const {
        std::size_t all = 0;
        for (const auto& [why, count] : counts_.registered_again) all += count;
        return all;
    }

    std::mt19937 random_;
    TlsLab tls_;
    Lab& lab_;
    TlsClient client_;
    std::size_t core_mark_ = 0;
    Counts counts_;
    std::unique_ptr<Phone> udp4_, udp6_, tcp4_, tcp6_, tls4_, tls6_, churn4_, churn6_, caller_, callee_, sender_,
        stopped_, quiet_;
};

}  // namespace

TEST_SUITE("kill-9") {
    TEST_CASE(
        "kill -9 at random moments under load: the kernel's SAs are those of the registrations, and no phone registers again but where its exchange was cut") {
        const auto rounds = number_from("GMGATE_KILL_ROUNDS", 6),
                   seed = number_from("GMGATE_SEED", std::random_device{}());
        std::printf("GMGATE_SEED=%lu GMGATE_KILL_ROUNDS=%lu\n", seed, rounds);
        std::fflush(stdout);
        Campaign campaign(rounds, static_cast<std::mt19937::result_type>(seed));
        for (std::size_t i = 0; i < rounds; ++i) campaign.round(i, kMoments[i % std::size(kMoments)]);
        campaign.print(rounds);
    }

    TEST_CASE(
        "another boot_id: rows are discarded and counted, and requests to those phones are refused until they register") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0}), b(lab, {.user = 1, .is_v6 = true});
        a.demand_registered();
        b.demand_registered();
        CHECK(a.message(b.impu(), unique_word("before-")) == 200);
        const auto rebooted = [&] {
            lab.kill_gateway();
            ask_store(lab, "UPDATE meta SET boot_id = '00000000-0000-0000-0000-000000000000'");
            lab.start_gateway();
        };
        Capture link(lab.network.ue, Network::kUeLink);
        rebooted();
        CHECK(lab.gateway().has_text("registrations-lost count=2"));
        CHECK(ask_store(lab, "SELECT count(*) FROM contact") == std::vector<std::string>{"0"});
        CHECK(count_sas(lab.network.gw) == 0);
        const auto initial = [](const nlohmann::json& event) {
            return event.value("event", "") == "registered" || event.value("event", "") == "register_failed";
        };
        CHECK(b.command("register", initial).value("event", "") == "registered");
        const auto word = unique_word("nobody-hears-");
        const int refused = b.message(a.impu(), word);
        CAPTURE(refused);
        CHECK((refused == 480 || refused == 504));
        CHECK(link.find(word).empty());
        CHECK(a.command("register", initial).value("event", "") == "registered");
        const auto heard = unique_word("heard-");
        CHECK(b.message(a.impu(), heard) == 200);
        a.await_message(heard);
        CHECK(link.find(heard).empty());
        CHECK(count_sas(lab.network.gw) == 8);
        // The same boot again: nothing is lost.
        lab.kill_gateway();
        lab.start_gateway();
        CHECK_FALSE(lab.gateway().has_text("registrations-lost"));
        CHECK(count_sas(lab.network.gw) == 8);
    }
}
