#include "gmctl/client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

namespace gmgate::gmctl {

Client::~Client() {
    if (fd_ >= 0) close(fd_);
}

Result<Client> Client::connect(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return failure(Reaction::reject, "the path of the control socket is too long: " + path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    Client client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (client.fd_ < 0) return system_failure(Reaction::broken, "no socket", errno);
    if (::connect(client.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return client;
    const int code = errno;
    const char* fix = code == ENOENT
                          ? "is control-socket set in gmgate.toml, and does gmgated run? (--socket names another path)"
                      : code == ECONNREFUSED ? "gmgated does not run"
                      : code == EACCES       ? "be root or a member of control-group"
                                             : "";
    auto error = system_failure(Reaction::broken, fmt::format("control socket {}", path), code);
    if (*fix != '\0') error.error().text += fmt::format("; {}", fix);
    return error;
}

Result<std::string> Client::read_line() {
    for (;;) {
        if (const auto end = buffer_.find('\n'); end != std::string::npos) {
            auto line = buffer_.substr(0, end);
            buffer_.erase(0, end + 1);
            return line;
        }
        char chunk[16384];
        const auto got = recv(fd_, chunk, sizeof chunk, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return failure(Reaction::broken, "gmgated closed the connection");
        buffer_.append(chunk, static_cast<std::size_t>(got));
    }
}

Result<nlohmann::json> Client::ask(const std::string& command, const nlohmann::json& arguments,
                                   const std::function<bool(const nlohmann::json&)>& on_event) {
    auto request = nlohmann::json{{"command", command}, {"arguments", arguments}}.dump(
                       -1, ' ', false, nlohmann::json::error_handler_t::replace) +
                   '\n';
    for (std::size_t sent = 0; sent < request.size();) {
        const auto n = send(fd_, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;  // what it said before it closed is read below
        sent += static_cast<std::size_t>(n);
    }
    for (;;) {
        const auto line = read_line();
        if (!line) return std::unexpected(line.error());
        const auto answer = nlohmann::json::parse(*line, nullptr, false);
        if (!answer.is_object()) return failure(Reaction::broken, "gmgated answered with something that is no JSON");
        if (answer.contains("event")) {
            if (on_event && !on_event(answer["event"])) return nlohmann::json::object();
            continue;
        }
        if (answer.value("ok", false)) return answer.value("result", nlohmann::json::object());
        return failure(Reaction::refused, answer.contains("error")
                                              ? answer["error"].value("text", "refused without a reason")
                                              : "refused without a reason");
    }
}

}  // namespace gmgate::gmctl
