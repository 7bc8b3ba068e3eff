// The log that test assertions read: one JSON object per line for every message in and out, and for decisions.
#pragma once

#include "endpoint.h"

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gmgate::peers {

/// Where and how a message travelled.
struct MessagePath {
    bool incoming = false;
    std::string transport;  ///< "udp", "tcp" or "tls"
    Endpoint local;
    Endpoint remote;
};

class MessageLog {
public:
    MessageLog() = default;
    /// Truncates the file and makes it readable by its owner only: raw text holds ck and ik on the core side. Without a
    /// path nothing is written.
    [[nodiscard]] static Result<MessageLog> open(const std::string& path);
    /// {"time":…,"event":"message","dir":"in"|"out","transport":…,"local":…,"remote":…,"method":…,"status":…,"call_id":…,"cseq":…,"raw":…}
    void message(const MessagePath& path, std::string_view raw);
    /// Adds "time" and writes the object as one line.
    void write(nlohmann::json object);
    [[nodiscard]] bool is_open() const { return file_ != nullptr; }

private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file_;
};

/// One line of JSON; octets that are not UTF-8 are replaced.
[[nodiscard]] std::string to_line(const nlohmann::json& object);

}  // namespace gmgate::peers
