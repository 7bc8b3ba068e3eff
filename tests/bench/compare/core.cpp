// The core of the comparison: an S-CSCF's answers over UDP, as little work as possible, the same beside each gateway.
//
//     gm_compare_core ADDRESS:PORT
//
// A REGISTER without a response gets 401 with CK and IK (TS 35.208, test set 1), one with a response 200. INVITE is
// answered by 100, 180 and 200, everything else by 200. A MESSAGE to a registered user goes to that user by its Path;
// when it is addressed to "long-USER" its body is filled up to 1,500 octets on the way. Responses to what it sent go
// back by their Vias. It keeps Path and Contact of each user, nothing else.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include <poll.h>

#include "tests/bench/compare/wire.h"

namespace gmgate::bench {
namespace {

constexpr std::size_t kLongBody = 1500;
constexpr const char* kChallenge =
    "WWW-Authenticate: Digest realm=\"ims.example.org\",nonce=\"I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7M=\","
    "algorithm=AKAv1-MD5,qop=\"auth\",ck=\"b40ba9a3c58b2a05bbf0d987b21bf8cb\",ik=\"f769bcd751044604127672711c6d3441\"\r\n";

std::string_view value_of(std::string_view line) {
    line.remove_prefix(std::min(line.size(), line.find(':') + 1));
    while (line.starts_with(' ')) line.remove_prefix(1);
    return line;
}

/// The lines of the head without the empty one.
std::vector<std::string_view> lines_of(std::string_view head) {
    std::vector<std::string_view> out;
    while (!head.empty()) {
        const auto end = head.find("\r\n");
        out.push_back(head.substr(0, end));
        head.remove_prefix(end == std::string_view::npos ? head.size() : end + 2);
    }
    return out;
}

/// The host and port of a SIP URI, also inside of "<…>".
Peer peer_of_uri(std::string_view text) {
    text.remove_prefix(std::min(text.size(), text.find("sip:") + 4));
    text = text.substr(0, text.find_first_of(";>,"));
    if (const auto at = text.find('@'); at != std::string_view::npos) text.remove_prefix(at + 1);
    return Peer::parse(text);
}

class Core {
public:
    explicit Core(const Peer& own) : own_(own), socket_(udp_socket(own)) {}

    [[noreturn]] void serve() {
        for (;;) {
            pollfd wanted{socket_, POLLIN, 0};
            poll(&wanted, 1, -1);
            const int count = inbox_.take(socket_);
            for (int i = 0; i < count; ++i) take(inbox_[i]);
        }
    }

private:
    struct User {
        std::string path, contact;
    };
    /// What is read of a request in one pass.
    struct Request {
        std::string echoed;  ///< the lines that each response repeats
        std::string_view contact, authorization;
        std::string user, path;
    };

    void take(const Datagram& datagram) {
        const auto end = datagram.text.find("\r\n\r\n");
        if (end == std::string_view::npos) return;
        const auto lines = lines_of(datagram.text.substr(0, end));
        const auto body = datagram.text.substr(end + 4);
        if (is_response(datagram.text)) return pass_back(lines, body);
        const auto method = lines[0].substr(0, lines[0].find(' '));
        if (method == "ACK") return;
        answer(method, read(lines, datagram.from), lines, body, datagram.from);
    }

    Request read(const std::vector<std::string_view>& lines, const Peer& from) {
        Request out;
        bool is_first_via = true;
        for (const auto line : lines) {
            if (is_field(line, "Via", "v")) {
                std::string via(line);
                if (is_first_via) via.insert(std::min(via.size(), via.find(',')), ";received=" + from.host.text());
                is_first_via = false;
                out.echoed += via + "\r\n";
            } else if (is_field(line, "From", "f") || is_field(line, "Call-ID", "i") || is_field(line, "CSeq") ||
                       is_field(line, "Record-Route")) {
                out.echoed.append(line).append("\r\n");
            } else if (is_field(line, "To", "t")) {
                out.echoed.append(line);
                if (line.find("tag=") == std::string_view::npos) out.echoed += ";tag=core" + std::to_string(++number_);
                out.echoed += "\r\n";
                const auto uri = value_of(line).substr(value_of(line).find("sip:"));
                out.user = uri.substr(0, uri.find_first_of(">;"));
            } else if (is_field(line, "Contact", "m")) {
                out.contact = value_of(line);
            } else if (is_field(line, "Path")) {
                out.path.append(out.path.empty() ? "" : ", ").append(value_of(line));
            } else if (is_field(line, "Authorization")) {
                out.authorization = value_of(line);
            }
        }
        return out;
    }

    void answer(std::string_view method, const Request& request, const std::vector<std::string_view>& lines,
                std::string_view body, const Peer& from) {
        if (method == "REGISTER") return send_to(from, answer_to_register(request));
        if (method == "INVITE") {
            const std::string contact = "Contact: <sip:service@" + own_.text() + ">\r\n";
            send_to(from, response("100 Trying", request, ""));
            send_to(from, response("180 Ringing", request, contact));
            send_to(from, response("200 OK", request, contact + "Content-Type: application/sdp\r\n", body));
        } else if (const auto user = find_user(request.user); method == "MESSAGE" && user) {
            send_on(*user, lines, body, request.user.starts_with("sip:long-"));
        } else {
            send_to(from, response("200 OK", request, ""));
        }
    }

    std::string answer_to_register(const Request& request) {
        const auto at = request.authorization.find("response=\"");
        const bool has_response = at != std::string_view::npos && request.authorization[at + 10] != '"';
        if (!has_response) return response("401 Unauthorized", request, kChallenge);
        const auto begin = request.contact.find('<') + 1;
        users_[request.user] = {request.path,
                                std::string(request.contact.substr(begin, request.contact.find('>') - begin))};
        std::string lines = request.path.empty() ? "" : "Path: " + request.path + "\r\n";
        lines.append("Contact: ").append(request.contact).append("\r\nService-Route: <sip:orig@" + own_.text());
        lines.append(";lr>\r\nP-Associated-URI: <").append(request.user).append(">\r\n");
        return response("200 OK", request, lines);
    }

    std::optional<User> find_user(std::string uri) const {
        if (uri.starts_with("sip:long-")) uri.erase(4, 5);
        const auto found = users_.find(uri);
        return found == users_.end() ? std::nullopt : std::optional(found->second);
    }

    static std::string response(std::string_view status, const Request& request, std::string_view lines,
                                std::string_view body = "") {
        std::string out = "SIP/2.0 ";
        out.append(status).append("\r\n").append(request.echoed).append(lines).append("Content-Length: ");
        return out.append(std::to_string(body.size())).append("\r\n\r\n").append(body);
    }

    /// A request to a registered user, by its Path.
    void send_on(const User& user, const std::vector<std::string_view>& lines, std::string_view body, bool is_long) {
        std::string text = "MESSAGE " + user.contact + " SIP/2.0\r\nVia: SIP/2.0/UDP " + own_.text() +
                           ";branch=z9hG4bKcore" + std::to_string(++number_) + "\r\n";
        if (!user.path.empty()) text += "Route: " + user.path + "\r\n";
        for (std::size_t i = 1; i < lines.size(); ++i)
            if (!is_field(lines[i], "Route") && !is_field(lines[i], "Content-Length", "l"))
                text.append(lines[i]).append("\r\n");
        std::string content(body);
        if (is_long) content.resize(std::max(kLongBody, content.size()), '.');
        text += "Content-Length: " + std::to_string(content.size()) + "\r\n\r\n" + content;
        send_to(peer_of_uri(user.path.empty() ? user.contact : user.path), text);
    }

    /// A response to what send_on() sent: without our Via, to the sender of the next one.
    void pass_back(const std::vector<std::string_view>& lines, std::string_view body) {
        std::string text;
        std::optional<Peer> to;
        bool is_own = true;
        for (const auto line : lines) {
            std::string_view via = is_field(line, "Via", "v") ? value_of(line) : std::string_view();
            if (via.empty()) {
                text.append(line).append("\r\n");
                continue;
            }
            if (is_own) {
                is_own = false;
                if (via.find(',') == std::string_view::npos) continue;
                via = value_of(via.substr(via.find(',')));
                while (via.starts_with(' ') || via.starts_with(',')) via.remove_prefix(1);
            }
            if (!to) {
                const auto by = via.substr(via.find("UDP ") + 4);
                to = Peer::parse(by.substr(0, by.find_first_of(";,")));
            }
            text.append("Via: ").append(via).append("\r\n");
        }
        if (to) send_to(*to, text.append("\r\n").append(body));
    }

    void send_to(const Peer& to, const std::string& text) { send_datagram(socket_, own_.host, to, text); }

    Peer own_;
    int socket_;
    Inbox inbox_;
    std::unordered_map<std::string, User> users_;
    unsigned long number_ = 0;
};

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    try {
        if (argc != 2) throw std::runtime_error("usage: gm_compare_core ADDRESS:PORT");
        gmgate::bench::Core(gmgate::bench::Peer::parse(argv[1])).serve();
    } catch (const std::exception& e) {
        std::fprintf(stderr, "core: %s\n", e.what());
        return 2;
    }
}
