// The phones of the comparison: N of them with ipsec-3gpp (hmac-sha-1-96, aes-cbc), each with an address and four SAs
// of its own, in one process. Commands come on standard input, one line each; one line of JSON answers each:
//
//     gm_compare_phones udp|tcp GATEWAY-HOST FIRST-PHONE-HOST
//
//     register N RATE      REGISTER, 401, protected REGISTER, 200       (RATE: begun per second)
//     message N RATE       MESSAGE from a phone, answered by the core
//     deliver N RATE       MESSAGE from a phone to another phone, which answers
//     deliver-long N RATE  the same; the core makes it longer than 1300 octets
//     call N RATE          INVITE, 100, 180, 200, ACK, BYE, 200
//     refresh N RATE       REGISTER over the SAs, 200
//     challenge N RATE     REGISTER over the SAs, 401, REGISTER over new SAs, 200
//     leave N RATE         REGISTER with Expires 0 over the SAs, 200
//     quit
//
// Requests over UDP are sent again as RFC 3261 §17.1 says (T1 0.5 s) and given up after 32 s.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <map>
#include <queue>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/bench/compare/phone_texts.h"

namespace gmgate::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;
using TimePoint = std::chrono::time_point<Clock, Seconds>;

TimePoint now() { return Clock::now(); }

constexpr Seconds kT1{0.5}, kT2{4.0}, kGiveUp{32.0};
constexpr std::uint16_t kServerPorts[] = {6100, 6101}, kClientPorts[] = {6200, 6201, 6202, 6203};

enum class Step { first_register, protected_register, message, invite, bye, refresh, asking_for_challenge, leave };

/// A client transaction.
struct Exchange {
    Step step{};
    std::uint32_t phone = 0;
    std::string text, call_id, from_tag;
    TimePoint begun{}, sent{}, next{};  ///< of the whole operation; of this request; of its next sending
    Seconds interval = kT1;
    std::uint16_t from_port = 0, to_port = 0;
};

struct Stream {
    std::uint32_t phone = 0;
    std::string received;
};

/// What a command did.
struct Tally {
    long done = 0, failed = 0, again = 0, strays = 0;
    std::vector<double> milliseconds;
};

double percentile(std::vector<double> values, double share) {
    if (values.empty()) return 0;
    const auto at = std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
    std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(at));
    return values[at];
}

class Phones {
public:
    Phones(bool is_tcp, const Host& gateway, const Host& first)
        : is_tcp_(is_tcp), gateway_(gateway), first_(first), kernel_(gateway.family) {
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        const Host any{gateway.family, {}};
        for (const auto port : {std::uint16_t{5060}, kUeClient[0], kUeClient[1], kUeServer})
            watch(sockets_[port] = udp_socket({any, port}));
        watch(listener_ = tcp_listener({any, kUeServer}));
        for (const auto port : kServerPorts) kernel_.protect_to({gateway, port});
        for (const auto port : kClientPorts) kernel_.protect_to({gateway, port});
        prefix_ = fmt::format("z9hG4bKp{:x}x", Clock::now().time_since_epoch().count());
    }

    /// Runs a command and returns its line of JSON.
    std::string run(const std::string& command, long count, double rate) {
        tally_ = {};
        if (command == "register") make_phones(static_cast<std::uint32_t>(count));
        const auto start = now();
        const auto end = start + Seconds(static_cast<double>(count) / rate + 120);
        long begun = 0;
        while (tally_.done + tally_.failed < count && now() < end) {
            const long due = std::min(count, static_cast<long>((now() - start).count() * rate) + 1);
            for (int burst = 0; begun < due && burst < 64; ++burst) begin(command, begun++);
            repeat_what_is_due();
            const auto next = begun < count ? start + Seconds(static_cast<double>(begun) / rate) : now() + Seconds(0.2);
            wait_until(timers_.empty() ? next : std::min(next, timers_.top().first));
        }
        const double seconds = (now() - start).count();
        exchanges_.clear();
        timers_ = {};
        return fmt::format(
            R"({{"ok":{},"failed":{},"retransmissions":{},"strays":{},"seconds":{:.3f},"p50_ms":{:.3f},"p99_ms":{:.3f}}})",
            tally_.done, count - tally_.done, tally_.again, tally_.strays, seconds,
            percentile(tally_.milliseconds, 0.5), percentile(tally_.milliseconds, 0.99));
    }

private:
    void watch(int fd) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    }
    std::string_view transport() const { return is_tcp_ ? "TCP" : "UDP"; }
    std::string new_branch() { return prefix_ + std::to_string(++number_); }

    void make_phones(std::uint32_t count) {
        for (auto& phone : phones_) {
            close_stream(phone.stream);
            close_stream(phone.clear_stream);
        }
        phones_.assign(count, {});
        for (std::uint32_t i = 0; i < count; ++i) {
            phones_[i].number = i;
            phones_[i].host = first_.plus(i);
            phones_[i].cseq = next_cseq_;
            offer(phones_[i], kUeClient[0]);
        }
        next_cseq_ += 1000;
    }
    void offer(Phone& phone, std::uint16_t port_uc) {
        phone.offered = {};
        phone.offered.port_uc = port_uc;
        phone.offered.spi_uc = next_spi_++;
        phone.offered.spi_us = next_spi_++;
    }

    // What is sent.

    void begin(const std::string& command, long n) {
        auto& phone = phones_[static_cast<std::size_t>(n) % phones_.size()];
        const auto start_time = now();
        if (command == "register") return send_register(phone, Step::first_register, start_time);
        if (command == "refresh") return send_register(phone, Step::refresh, start_time);
        if (command == "leave") return send_register(phone, Step::leave, start_time);
        if (command == "challenge") {
            offer(phone, phone.agreed.port_uc == kUeClient[0] ? kUeClient[1] : kUeClient[0]);
            return send_register(phone, Step::asking_for_challenge, start_time);
        }
        std::string user = "service";
        if (command.starts_with("deliver"))
            user = user_of(static_cast<std::uint32_t>((phone.number + 1) % phones_.size()));
        if (command == "deliver-long") user = "long-" + user;
        send_request(phone, command == "call" ? Step::invite : Step::message, user);
    }

    void send_register(Phone& phone, Step step, TimePoint begun) {
        ++phone.cseq;
        Exchange out{.step = step, .phone = phone.number, .text = {}, .call_id = {}, .from_tag = {}, .begun = begun};
        const Agreement* over = &phone.agreed;
        if (step == Step::first_register) over = nullptr;
        if (step == Step::protected_register) over = &phone.offered;
        out.from_port = over ? over->port_uc : 5060;
        out.to_port = over ? over->port_ps : 5060;
        const auto credentials = step == Step::first_register         ? Credentials::none
                                 : step == Step::asking_for_challenge ? Credentials::empty_response
                                                                      : Credentials::response;
        const auto branch = new_branch();
        out.text = register_text(phone, transport(), branch, over, credentials, step == Step::leave ? 0 : kExpires);
        start(std::move(out), branch);
    }

    void send_request(Phone& phone, Step step, const std::string& user) {
        const auto uri = fmt::format("sip:{}@{}", user, kRealm);
        const auto branch = new_branch();
        Saying saying{.branch = branch,
                      .call_id = fmt::format("c{}@{}", number_, phone.host.text()),
                      .from_tag = std::to_string(number_),
                      .to = fmt::format("<{}>", uri),
                      .route = {},
                      .body = {},
                      .content_type = {}};
        saying.route =
            fmt::format("Route: <sip:{}:{};lr{}>{}{}\r\n", gateway_.text(), phone.agreed.port_ps,
                        is_tcp_ ? ";transport=tcp" : "", phone.service_route.empty() ? "" : ", ", phone.service_route);
        saying.body = step == Step::invite ? session_description()
                                           : "hello world, this is a short message of some sixty octets....\r\n";
        saying.content_type = step == Step::invite ? "application/sdp" : "text/plain";
        Exchange out = protected_exchange(phone, step, saying);
        out.text = request_text(phone, transport(), step == Step::invite ? "INVITE" : "MESSAGE", uri, saying);
        start(std::move(out), branch);
    }

    static Exchange protected_exchange(const Phone& phone, Step step, const Saying& saying) {
        Exchange out{.step = step,
                     .phone = phone.number,
                     .text = {},
                     .call_id = saying.call_id,
                     .from_tag = saying.from_tag,
                     .begun = now()};
        out.from_port = phone.agreed.port_uc;
        out.to_port = phone.agreed.port_ps;
        return out;
    }

    void start(Exchange exchange, const std::string& branch) {
        exchange.sent = now();
        exchange.next = exchange.sent + exchange.interval;
        send(exchange);
        if (!is_tcp_) timers_.push({exchange.next, branch});
        exchanges_.insert_or_assign(branch, std::move(exchange));
    }

    void send(const Exchange& exchange) {
        auto& phone = phones_[exchange.phone];
        if (!is_tcp_)
            return send_datagram(sockets_[exchange.from_port], phone.host, {gateway_, exchange.to_port}, exchange.text);
        int& fd = exchange.to_port == 5060 ? phone.clear_stream : phone.stream;
        if (exchange.step == Step::protected_register) close_stream(fd);
        if (fd < 0) {
            const auto port = exchange.to_port == 5060 ? std::uint16_t{0} : exchange.from_port;
            fd = tcp_connection({phone.host, port}, {gateway_, exchange.to_port});
            if (fd < 0) return complain("no connection", exchange.text);
            streams_[fd] = {phone.number, {}};
            watch(fd);
        }
        write(fd, exchange.text);
    }

    static void write(int fd, std::string_view text) {
        if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) < 0) complain("cannot write", text);
    }

    void close_stream(int& fd) {
        if (fd < 0) return;
        streams_.erase(fd);
        close(fd);
        fd = -1;
    }

    void repeat_what_is_due() {
        while (!timers_.empty() && timers_.top().first <= now()) {
            const auto branch = timers_.top().second;
            timers_.pop();
            const auto found = exchanges_.find(branch);
            if (found == exchanges_.end() || found->second.next == TimePoint::max()) continue;
            auto& exchange = found->second;
            if (now() - exchange.sent > kGiveUp) {
                ++tally_.failed;
                exchanges_.erase(found);
                continue;
            }
            ++tally_.again;
            send(exchange);
            exchange.interval = std::min(exchange.interval * 2, kT2);
            exchange.next = now() + exchange.interval;
            timers_.push({exchange.next, branch});
        }
    }

    // What is received.

    void wait_until(TimePoint deadline) {
        const int wait = std::clamp(static_cast<int>((deadline - now()).count() * 1000 + 0.999), 0, 200);
        epoll_event ready[16];
        const int count = epoll_wait(epoll_, ready, 16, wait);
        for (int i = 0; i < count; ++i) {
            const int fd = ready[i].data.fd;
            if (fd == listener_) accept_stream();
            else if (const auto found = streams_.find(fd); found != streams_.end()) read_stream(fd);
            else read_datagrams(fd);
        }
    }

    void read_datagrams(int fd) {
        const int count = inbox_.take(fd);
        for (int i = 0; i < count; ++i) {
            const auto number = inbox_[i].to.number_from(first_);
            if (number < phones_.size()) take(inbox_[i].text, number, -1);
            else ++tally_.strays;
        }
    }

    void accept_stream() {
        const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        sockaddr_storage own{};
        socklen_t length = sizeof own;
        getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length);
        streams_[fd] = {Peer::from(own).host.number_from(first_), {}};
        watch(fd);
    }

    void read_stream(int fd) {
        char buffer[16384];
        const auto size = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        const auto number = streams_[fd].phone;
        if (size <= 0 || number >= phones_.size()) {
            auto& phone = phones_.at(number);
            int gone = fd;
            if (phone.stream == fd) phone.stream = -1;
            if (phone.clear_stream == fd) phone.clear_stream = -1;
            return close_stream(gone);
        }
        streams_[fd].received.append(buffer, static_cast<std::size_t>(size));
        for (;;) {
            const auto found = streams_.find(fd);
            if (found == streams_.end()) return;
            auto& text = found->second.received;
            text.erase(0, text.find_first_not_of("\r\n"));
            const auto end = text.find("\r\n\r\n");
            if (end == std::string::npos) return;
            std::size_t body = 0;
            if (const auto value = header(text, "Content-Length"); !value.empty())
                body = std::stoul(std::string(value));
            if (text.size() < end + 4 + body) return;
            const auto message = text.substr(0, end + 4 + body);
            text.erase(0, message.size());
            take(message, number, fd);
        }
    }

    /// `stream`: where it came from; -1: a datagram.
    void take(std::string_view text, std::uint32_t number, int stream) {
        auto& phone = phones_[number];
        if (!is_response(text)) {
            const auto answer = answer_text(text);
            if (stream >= 0) return write(stream, answer);
            return send_datagram(sockets_[phone.agreed.port_uc], phone.host, {gateway_, phone.agreed.port_ps}, answer);
        }
        const auto found = exchanges_.find(std::string(text_of(header(text, "Via"), "branch")));
        if (found == exchanges_.end()) {
            ++tally_.strays;
            return;
        }
        if (status_of(text) < 200) {
            if (found->second.step == Step::invite) found->second.next = TimePoint::max();
            return;
        }
        const auto exchange = std::move(found->second);
        exchanges_.erase(found);
        finish(exchange, phone, text);
    }

    void finish(const Exchange& exchange, Phone& phone, std::string_view text) {
        const int status = status_of(text);
        const bool wants_challenge =
            exchange.step == Step::first_register || exchange.step == Step::asking_for_challenge;
        if (wants_challenge && status == 401) return take_challenge(exchange, phone, text);
        if (wants_challenge || status > 299) {
            ++tally_.failed;
            return complain(exchange.text, text);
        }
        if (exchange.step == Step::protected_register) {
            const auto old = std::exchange(phone.agreed, phone.offered);
            phone.service_route = header(text, "Service-Route");
            if (old.port_ps != 0) kernel_.remove(sas_of(phone, old));
        }
        if (exchange.step == Step::invite) return hang_up(exchange, phone, text);
        if (exchange.step == Step::leave) {
            kernel_.remove(sas_of(phone, phone.agreed));
            phone.agreed = {};
        }
        ++tally_.done;
        tally_.milliseconds.push_back((now() - exchange.begun).count() * 1000);
    }

    void take_challenge(const Exchange& exchange, Phone& phone, std::string_view text) {
        auto& offered = phone.offered;
        offered.security_server = header(text, "Security-Server");
        offered.spi_pc = number_of(offered.security_server, "spi-c");
        offered.spi_ps = number_of(offered.security_server, "spi-s");
        offered.port_pc = static_cast<std::uint16_t>(number_of(offered.security_server, "port-c"));
        offered.port_ps = static_cast<std::uint16_t>(number_of(offered.security_server, "port-s"));
        if (std::ranges::count(kServerPorts, offered.port_ps) == 0 ||
            text_of(offered.security_server, "alg") != "hmac-sha-1-96") {
            ++tally_.failed;
            return complain(exchange.text, text);
        }
        kernel_.add(sas_of(phone, offered));
        send_register(phone, Step::protected_register, exchange.begun);
    }

    /// The four SAs of TS 33.203 §7.1.
    std::vector<BenchSa> sas_of(const Phone& phone, const Agreement& a) const {
        const Peer uc{phone.host, a.port_uc}, us{phone.host, kUeServer}, pc{gateway_, a.port_pc},
            ps{gateway_, a.port_ps};
        return {{uc, ps, a.spi_ps}, {us, pc, a.spi_pc}, {ps, uc, a.spi_uc}, {pc, us, a.spi_us}};
    }

    /// ACK, then BYE.
    void hang_up(const Exchange& call, Phone& phone, std::string_view answer) {
        auto contact = header(answer, "Contact");
        contact.remove_prefix(contact.find('<') + 1);
        const std::string uri(contact.substr(0, contact.find('>')));
        Saying saying{.branch = new_branch(),
                      .call_id = call.call_id,
                      .from_tag = call.from_tag,
                      .to = std::string(header(answer, "To")),
                      .route = dialog_route(answer),
                      .body = {},
                      .content_type = {}};
        Exchange ack = protected_exchange(phone, Step::invite, saying);
        ack.text = request_text(phone, transport(), "ACK", uri, saying);
        send(ack);
        saying.branch = new_branch();
        saying.cseq = 2;
        Exchange bye = protected_exchange(phone, Step::bye, saying);
        bye.begun = call.begun;
        bye.text = request_text(phone, transport(), "BYE", uri, saying);
        start(std::move(bye), saying.branch);
    }

    static void complain(std::string_view asked, std::string_view answer) {
        static int complaints = 0;
        if (complaints++ < 5)
            std::fprintf(stderr, "phones: %s\n  for %s\n", std::string(answer.substr(0, 600)).c_str(),
                         std::string(asked.substr(0, 40)).c_str());
    }

    bool is_tcp_;
    Host gateway_, first_;
    SecurityKernel kernel_;
    int epoll_ = -1, listener_ = -1;
    std::map<std::uint16_t, int> sockets_;
    std::unordered_map<int, Stream> streams_;
    std::vector<Phone> phones_;
    std::unordered_map<std::string, Exchange> exchanges_;  ///< by branch
    using Timer = std::pair<TimePoint, std::string>;
    std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
    Inbox inbox_;
    Tally tally_;
    std::string prefix_;
    unsigned long number_ = 0;
    std::uint32_t next_spi_ = 0x100000;
    int next_cseq_ = 0;
};

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    using gmgate::bench::Host;
    try {
        if (argc != 4) throw std::runtime_error("usage: gm_compare_phones udp|tcp GATEWAY-HOST FIRST-PHONE-HOST");
        gmgate::bench::Phones phones(std::string(argv[1]) == "tcp", Host::parse(argv[2]), Host::parse(argv[3]));
        std::string command;
        long count = 0;
        double rate = 0;
        while (std::cin >> command && command != "quit" && std::cin >> count >> rate)
            std::cout << phones.run(command, count, rate) << std::endl;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "phones: %s\n", e.what());
        return 2;
    }
}
