// The floor of the comparison: what a P-CSCF cannot do without. For each exchange it makes the unavoidable system calls
// (wait, receive, send, one netlink send for a batch of SAs) with the same octets on the wire, and otherwise as little
// as possible: it puts its Via and Path into a request, takes its Via off a response and knows where the phone is. It
// checks nothing, keeps no transaction, retransmits nothing, logs nothing, stores nothing: no gateway may do that, and
// none can be cheaper. UDP only.
//
//     gm_compare_floor ACCESS-HOST CORE-SIDE-HOST:PORT CORE-HOST:PORT

#include <array>
#include <charconv>
#include <cstdio>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/epoll.h>

#include "tests/bench/compare/security.h"

namespace gmgate::bench {
namespace {

constexpr std::uint16_t kServerPort = 6100;
/// A new set takes the client port that the established one does not have: else the kernel would choose the newer SA
/// for what the phone must get over the older one (TS 33.203 §7.4).
constexpr std::uint16_t kClientPorts[] = {6200, 6201};
/// How the request came, written into the branch, so that the response finds its way and its meaning.
enum Way : char { kClear = 'c', kProtected = 'p', kFarewell = 'f' };

class Floor {
public:
    Floor(const std::string& access, const Peer& core_side, const Peer& core)
        : access_(Host::parse(access)), core_side_(core_side), core_(core), kernel_(access_.family) {
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        clear_ = watch({access_, 5060});
        server_ = watch({access_, kServerPort});
        for (const auto port : kClientPorts) clients_[port] = watch({access_, port});
        inside_ = watch(core_side_);
        kernel_.protect_from({access_, kServerPort});
        for (const auto port : kClientPorts) kernel_.protect_from({access_, port});
    }

    [[noreturn]] void serve() {
        for (;;) {
            std::array<epoll_event, 8> ready{};
            const int sockets = epoll_wait(epoll_, ready.data(), ready.size(), -1);
            for (int s = 0; s < sockets; ++s) {
                const int fd = ready[static_cast<std::size_t>(s)].data.fd;
                const int count = inbox_.take(fd);
                for (int i = 0; i < count; ++i) take(fd, inbox_[i]);
            }
        }
    }

private:
    struct Phone {
        Host host;
        std::string last_branch;  ///< of its last REGISTER
        std::uint32_t spi_uc = 0, spi_us = 0, spi_pc = 0;
        std::uint16_t port_uc = 0, port_us = 0;
        std::uint16_t port_pc = 0, offered_port_pc = 0;  ///< of the established set, of the offered one
        std::vector<BenchSa> offered, established;
    };

    int watch(const Peer& at) {
        const int fd = udp_socket(at);
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
        return fd;
    }

    void take(int fd, const Datagram& datagram) {
        const bool is_from_core = fd == inside_;
        if (is_response(datagram.text))
            is_from_core ? response_from_core(datagram.text) : response_from_phone(datagram.text);
        else is_from_core ? request_from_core(datagram.text) : request_from_phone(fd == clear_, datagram);
    }

    void request_from_phone(bool is_clear, const Datagram& datagram) {
        const auto text = datagram.text;
        const auto [found, is_new] = numbers_.try_emplace(datagram.from.host, phones_.size());
        if (is_new)
            phones_.push_back({.host = datagram.from.host, .last_branch = {}, .offered = {}, .established = {}});
        char way = is_clear ? kClear : kProtected;
        std::string added;
        const std::string number = std::to_string(found->second);
        if (text.starts_with("REGISTER ")) {
            // A retransmission would make other SAs than those that the phone has been told of.
            const auto branch = text_of(header(text, "Via"), "branch");
            if (branch == phones_[found->second].last_branch) return;
            phones_[found->second].last_branch = branch;
            note_offer(phones_[found->second], header(text, "Security-Client"));
            if (header(text, "Expires") == "0") way = kFarewell;
            added = "Path: <sip:" + number + "@" + core_side_.text() + ";lr>\r\n";
        } else if (text.starts_with("INVITE ")) {
            added = "Record-Route: <sip:" + number + "@" + core_side_.text() + ";lr>\r\n";
        }
        const auto at = text.find("\r\n") + 2;
        std::string out;
        out.reserve(text.size() + 256);
        out.append(text.substr(0, at)).append("Via: SIP/2.0/UDP ").append(core_side_.text()).append(";branch=z9hG4bK");
        out += way;
        out.append(number).append(".").append(std::to_string(++branches_)).append("\r\n").append(added);
        send_datagram(inside_, core_side_.host, core_, out.append(text.substr(at)));
    }

    static void note_offer(Phone& phone, std::string_view offer) {
        phone.spi_uc = number_of(offer, "spi-c");
        phone.spi_us = number_of(offer, "spi-s");
        phone.port_uc = static_cast<std::uint16_t>(number_of(offer, "port-c"));
        phone.port_us = static_cast<std::uint16_t>(number_of(offer, "port-s"));
    }

    void response_from_core(std::string_view text) {
        const auto begin = text.find("\r\n") + 2;
        auto branch = text.substr(text.find("z9hG4bK", begin) + 7);
        const char way = branch[0];
        std::size_t number = 0;
        std::from_chars(branch.data() + 1, branch.data() + branch.size(), number);
        auto& phone = phones_.at(number);
        std::string out(text.substr(0, begin));
        out.reserve(text.size() + 256);
        std::string_view rest = text.substr(text.find("\r\n", begin) + 2);
        if (text.starts_with("SIP/2.0 401 ")) {
            challenge(phone);
            out += security_server(phone);
            const auto keys = rest.find(",ck=");
            out.append(rest.substr(0, keys));
            rest = rest.substr(rest.find("\r\n", keys));
        } else if (way == kProtected && !phone.offered.empty() && text.starts_with("SIP/2.0 200 ")) {
            if (!phone.established.empty()) kernel_.remove(phone.established);
            phone.established = std::exchange(phone.offered, {});
            phone.port_pc = phone.offered_port_pc;
        }
        out.append(rest);
        if (way == kClear) send_datagram(clear_, access_, {phone.host, 5060}, out);
        else to_phone(phone, out);
        if (way == kFarewell) {  // behind the answer, which needs them
            kernel_.remove(phone.established);
            phone.established.clear();
        }
    }

    /// The four SAs of TS 33.203 §7.1, in one batch.
    void challenge(Phone& phone) {
        if (!phone.offered.empty()) kernel_.remove(phone.offered);
        phone.spi_pc = next_spi_;
        next_spi_ += 2;
        const Peer uc{phone.host, phone.port_uc}, us{phone.host, phone.port_us};
        phone.offered_port_pc = kClientPorts[phone.port_pc == kClientPorts[0] ? 1 : 0];
        const Peer pc{access_, phone.offered_port_pc}, ps{access_, kServerPort};
        phone.offered = {
            {us, pc, phone.spi_pc}, {uc, ps, phone.spi_pc + 1}, {pc, us, phone.spi_us}, {ps, uc, phone.spi_uc}};
        kernel_.add(phone.offered);
    }

    static std::string security_server(const Phone& phone) {
        return "Security-Server: ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=" + std::to_string(phone.spi_pc) +
               ";spi-s=" + std::to_string(phone.spi_pc + 1) + ";port-c=" + std::to_string(phone.offered_port_pc) +
               ";port-s=" + std::to_string(kServerPort) + ";alg=hmac-sha-1-96;ealg=aes-cbc\r\n";
    }

    /// The Route names the phone by its number (its Path).
    void request_from_core(std::string_view text) {
        const auto route = header(text, "Route");
        std::size_t number = 0;
        std::from_chars(route.data() + route.find("sip:") + 4, route.data() + route.size(), number);
        const auto at = text.find("\r\n") + 2;
        std::string out;
        out.reserve(text.size() + 256);
        out.append(text.substr(0, at))
            .append("Via: SIP/2.0/UDP ")
            .append(access_.text())
            .append(":6200;branch=z9hG4bKt");
        out.append(std::to_string(++branches_)).append("\r\n").append(text.substr(at));
        to_phone(phones_.at(number), out);
    }

    void response_from_phone(std::string_view text) {
        const auto begin = text.find("\r\n") + 2;
        std::string out(text.substr(0, begin));
        send_datagram(inside_, core_side_.host, core_, out.append(text.substr(text.find("\r\n", begin) + 2)));
    }

    void to_phone(const Phone& phone, const std::string& text) {
        send_datagram(clients_.at(phone.port_pc), access_, {phone.host, phone.port_us}, text);
    }

    Host access_;
    Peer core_side_, core_;
    SecurityKernel kernel_;
    int epoll_ = -1, clear_ = -1, server_ = -1, inside_ = -1;
    std::map<std::uint16_t, int> clients_;
    Inbox inbox_;
    std::map<Host, std::size_t> numbers_;
    std::vector<Phone> phones_;
    std::uint32_t next_spi_ = 4096;
    unsigned long branches_ = 0;
};

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    using gmgate::bench::Peer;
    try {
        if (argc != 4)
            throw std::runtime_error("usage: gm_compare_floor ACCESS-HOST CORE-SIDE-HOST:PORT CORE-HOST:PORT");
        gmgate::bench::Floor(argv[1], Peer::parse(argv[2]), Peer::parse(argv[3])).serve();
    } catch (const std::exception& e) {
        std::fprintf(stderr, "floor: %s\n", e.what());
        return 2;
    }
}
