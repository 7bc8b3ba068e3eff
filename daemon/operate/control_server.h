// The control socket: a local stream socket, who is at its other end (SO_PEERCRED), and limits. What commands do stands
// elsewhere.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>
#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/operate/control_protocol.h"

namespace gmgate::daemon {

struct ControlSettings {
    std::string path;          ///< of the socket; a missing folder is made (one level)
    std::string group;         ///< name or number: its members may read; empty: only root and the daemon's own user
    std::size_t clients = 32;  ///< at once; one more is told so and closed
    std::size_t request_octets = 65536;           ///< longest request
    std::size_t queue_octets = 16 * 1024 * 1024;  ///< not yet read by a client; one that lags behind farther is closed
    std::chrono::seconds idle{60};                ///< a client that asks nothing for so long is closed
};

/// Who may do what: root and the daemon's own user everything, members of `group` (primary or supplementary) read.
struct PeerCredentials {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups{};
};
Rights rights_of(const PeerCredentials& peer, uid_t own, std::optional<gid_t> group);

/// The other end while a command runs for it.
class ControlClient {
public:
    virtual ~ControlClient() = default;
    virtual Rights rights() const = 0;
    virtual std::string who() const = 0;  ///< "uid 0, pid 4711", for the log
    /// Queues one event line; false when the client is gone or lags too far behind.
    virtual bool send_event(const nlohmann::json& event) = 0;
    /// True when it has closed its end, or sent something while a command runs (which ends a following command).
    virtual bool is_gone() = 0;
};

struct ControlCommand {
    Rights needed = Rights::read;
    std::string help;
    /// The arguments belong to the caller and outlive the coroutine, so does the client.
    std::function<Task<Result<nlohmann::json>>(const nlohmann::json& arguments, ControlClient& client)> run;
};

struct ControlCounters {
    std::uint64_t requests = 0, refused = 0, clients = 0, clients_refused = 0, overflows = 0;
};

class ControlServer {
public:
    ControlServer(asio::any_io_executor executor, ControlSettings settings);
    ~ControlServer();

    void add(std::string name, ControlCommand command);
    /// Errors: another gmgated answers there; the path is not a socket; the group does not exist; what the system says.
    /// `replace`: from a gmgated that we take over from, which loses its place to us.
    Result<void> open(bool replace = false);
    /// Ends all clients and removes the socket, unless another process has taken its place.
    void close();
    const ControlCounters& counters() const;
    const std::map<std::string, ControlCommand>& commands() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the sessions in flight
};

}  // namespace gmgate::daemon
