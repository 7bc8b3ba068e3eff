#include "message_log.h"

#include "sip_message.h"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace gmgate::peers {

std::string to_line(const nlohmann::json& object) {
    return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

Result<MessageLog> MessageLog::open(const std::string& path) {
    if (path.empty()) return MessageLog{};
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return fail("{}: {}", path, std::strerror(errno));
    MessageLog out;
    out.file_.reset(fdopen(fd, "a"));
    return out;
}

void MessageLog::write(nlohmann::json object) {
    if (!file_) return;
    const auto now =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch());
    object["time"] = static_cast<double>(now.count()) / 1e6;
    const std::string line = to_line(object);
    std::fwrite(line.data(), 1, line.size(), file_.get());
    std::fflush(file_.get());
}

void MessageLog::message(const MessagePath& path, std::string_view raw) {
    if (!file_) return;
    nlohmann::json object{{"event", "message"},
                          {"dir", path.incoming ? "in" : "out"},
                          {"transport", path.transport},
                          {"local", path.local.to_string()},
                          {"remote", path.remote.to_string()},
                          {"raw", raw}};
    if (const auto message = SipMessage::parse(raw)) {
        object["method"] = message->method();
        if (!message->is_request()) object["status"] = message->status();
        object["call_id"] = message->call_id();
        object["cseq"] = message->cseq();
    } else {
        object["malformed"] = message.error().text;
    }
    write(std::move(object));
}

}  // namespace gmgate::peers
