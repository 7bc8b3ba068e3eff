// The control socket from gmctl's side: one request, its events, its answer. Blocking: gmctl does one thing at a time.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gmgate::gmctl {

class Client {
public:
    Client() = default;
    Client(Client&& other) noexcept : fd_(other.fd_), buffer_(std::move(other.buffer_)) { other.fd_ = -1; }
    Client& operator=(Client&&) = delete;
    ~Client();
    /// Errors name the path and what to do: no such socket, no rights, nobody answers.
    static Result<Client> connect(const std::string& path);

    /// Sends a request and returns the "result" of its answer; `on_event` gets what comes before (false = stop, an
    /// empty result). Errors: what the gateway refuses (Reaction::refused or reject), a connection that ended (broken).
    Result<nlohmann::json> ask(const std::string& command, const nlohmann::json& arguments = nlohmann::json::object(),
                               const std::function<bool(const nlohmann::json&)>& on_event = {});

private:
    explicit Client(int fd) : fd_(fd) {}
    Result<std::string> read_line();
    int fd_ = -1;
    std::string buffer_;
};

}  // namespace gmgate::gmctl
