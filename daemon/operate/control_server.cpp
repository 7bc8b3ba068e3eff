#include "daemon/operate/control_server.h"

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <asio/local/stream_protocol.hpp>
#include <asio/read_until.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "base/log.h"
#include "base/reserve_descriptor.h"
#include "base/spawn.h"
#include "base/umask.h"

namespace gmgate::daemon {
namespace {

using Socket = asio::local::stream_protocol::socket;
constexpr std::size_t kGroupLimit = 256;  // of a peer's supplementary groups that are looked at

/// Makes a folder with this mode, whatever the umask; one that is there stays as it is.
bool is_made(const std::string& folder, mode_t mode) {
    if (mkdir(folder.c_str(), mode) != 0) return errno == EEXIST;
    return chmod(folder.c_str(), mode) == 0;
}

std::optional<gid_t> group_number(const std::string& word) {
    gid_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc{} && end == word.data() + word.size()) return number;
    const auto* entry = getgrnam(word.c_str());
    return entry ? std::optional(entry->gr_gid) : std::nullopt;
}

// The kernel recorded them when the peer connected; nothing that the peer says counts.
std::optional<std::pair<PeerCredentials, pid_t>> credentials_of(int fd) {
    ucred cred{};
    socklen_t length = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0) return std::nullopt;
    PeerCredentials peer{cred.uid, cred.gid, std::vector<gid_t>(kGroupLimit)};
    socklen_t octets = kGroupLimit * sizeof(gid_t);
    peer.groups.resize(
        getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &octets) == 0 ? octets / sizeof(gid_t) : 0);
    return std::pair{peer, cred.pid};
}

bool somebody_answers(const std::string& path) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const bool answers = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(fd);
    return answers;
}

}  // namespace

Rights rights_of(const PeerCredentials& peer, uid_t own, std::optional<gid_t> group) {
    if (peer.uid == 0 || peer.uid == own) return Rights::admin;
    if (group && (peer.gid == *group || std::ranges::find(peer.groups, *group) != peer.groups.end()))
        return Rights::read;
    return Rights::none;
}

struct ControlServer::Impl : std::enable_shared_from_this<Impl> {
    Impl(asio::any_io_executor e, ControlSettings s)
        : executor(std::move(e)), settings(std::move(s)), acceptor(executor) {}

    struct Client final : ControlClient {
        Client(Impl& s, Socket peer) : server(s), socket(std::move(peer)), idle(socket.get_executor()) {}
        Rights rights() const override { return rights_; }
        std::string who() const override { return who_; }
        bool send_event(const nlohmann::json& event) override { return queue_line(event_line(event)); }
        bool is_gone() override {
            if (!socket.is_open()) return true;
            char byte = 0;
            const auto got = recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
            return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
        }
        bool queue_line(std::string line);

        Impl& server;
        Socket socket;
        asio::steady_timer idle;
        Rights rights_ = Rights::none;
        std::string who_, in, out;
        bool writing = false, ending = false;
    };

    Result<void> open(bool replace);
    // `keep`: a coroutine may begin after the server is gone.
    Task<void> accept(std::shared_ptr<Impl> keep);
    Task<void> serve(std::shared_ptr<Impl> keep, std::shared_ptr<Client> client);
    Task<void> talk(std::shared_ptr<Client> client);
    Task<void> write(std::shared_ptr<Impl> keep, std::shared_ptr<Client> client);
    Task<void> handle(std::shared_ptr<Client> client, std::string line);
    void end(const std::shared_ptr<Client>& client);

    asio::any_io_executor executor;
    ControlSettings settings;
    asio::local::stream_protocol::acceptor acceptor;
    std::map<std::string, ControlCommand> commands;
    std::set<std::shared_ptr<Client>> clients;
    std::optional<gid_t> group;
    ControlCounters counters;
    ReserveDescriptor reserve;
    std::pair<dev_t, ino_t> place{};  // of the socket that we bound: another process may bind its own there later
    bool is_open = false;
};

// ------------------------------------------------------------------------------------------
// open

Result<void> ControlServer::Impl::open(bool replace) {
    const auto& path = settings.path;
    const auto wrong = [&](std::string_view what, int code) {
        return system_failure(Reaction::broken, fmt::format("control-socket {}: {}", path, what), code);
    };
    if (path.size() >= sizeof(sockaddr_un::sun_path))
        return failure(Reaction::reject, fmt::format("control-socket {}: the path is longer than {} octets", path,
                                                     sizeof(sockaddr_un::sun_path) - 1));
    if (!settings.group.empty()) {
        group = group_number(settings.group);
        if (!group)
            return failure(
                Reaction::reject,
                fmt::format("control-group \"{}\" does not exist; make it (addgroup --system {}) or correct the file",
                            settings.group, settings.group));
    }
    if (const auto folder = std::filesystem::path(path).parent_path();
        !folder.empty() && !is_made(folder.string(), 0755))
        return wrong("its folder cannot be made", errno);
    struct stat found {};
    if (lstat(path.c_str(), &found) == 0) {
        if (!S_ISSOCK(found.st_mode))
            return failure(Reaction::reject,
                           fmt::format("control-socket {}: something that is no socket lies there", path));
        if (!replace && somebody_answers(path))
            return failure(Reaction::broken, fmt::format("control-socket {}: another gmgated answers there", path));
        unlink(path.c_str());  // of a process that did not end in peace
    }
    asio::error_code error;
    acceptor.open(asio::local::stream_protocol{}, error);
    if (error) return wrong("cannot be opened", error.value());
    // Nobody can connect before the mode is right: bind under a mask that leaves nothing but the owner.
    {
        const Umask only_owner(0177);
        acceptor.bind(asio::local::stream_protocol::endpoint(path), error);
    }
    if (error) return wrong("cannot be bound", error.value());
    if (group && (chown(path.c_str(), static_cast<uid_t>(-1), *group) != 0 || chmod(path.c_str(), 0660) != 0))
        return wrong("cannot be given to control-group", errno);
    acceptor.listen(static_cast<int>(settings.clients), error);
    if (!error) acceptor.non_blocking(true, error);  // for the accept with the reserve
    if (error) return wrong("cannot listen", error.value());
    if (lstat(path.c_str(), &found) == 0) place = {found.st_dev, found.st_ino};
    is_open = true;
    return {};
}

// ------------------------------------------------------------------------------------------
// clients

Task<void> ControlServer::Impl::accept([[maybe_unused]] std::shared_ptr<Impl> keep) {
    while (is_open) {
        reserve.take();  // when its last user has gone
        asio::error_code error;
        Socket peer(executor);
        co_await acceptor.async_accept(peer, asio::redirect_error(asio::use_awaitable, error));
        if (!is_open) co_return;
        reserve.accept_again(acceptor, peer, error);
        if (error) {  // out of descriptors, say: the others wait in the backlog
            asio::steady_timer pause(executor, std::chrono::milliseconds{100});
            co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
            continue;
        }
        const auto who = credentials_of(peer.native_handle());
        auto client = std::make_shared<Client>(*this, std::move(peer));
        if (who) {
            client->rights_ = rights_of(who->first, geteuid(), group);
            client->who_ = fmt::format("uid {}, pid {}", who->first.uid, who->second);
        }
        const bool no_room = clients.size() >= settings.clients;
        if (no_room || client->rights_ == Rights::none) {
            ++counters.clients_refused;
            const Error why = no_room ? Error{Reaction::exhausted, 0, "too many clients are connected; try again"}
                                      : Error{Reaction::refused, 0,
                                              "you may not use this socket: be root or a member of control-group"};
            log::notice("control-refused", {{"client", client->who_}, {"why", why.text}});
            const auto line = error_line(why);
            static_cast<void>(
                send(client->socket.native_handle(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
            continue;
        }
        ++counters.clients;
        clients.insert(client);
        spawn(executor, serve(keep, client), "control");
    }
}

Task<void> ControlServer::Impl::serve([[maybe_unused]] std::shared_ptr<Impl> keep, std::shared_ptr<Client> client) {
    std::exception_ptr thrown;
    try {
        co_await talk(client);
    } catch (...) {
        thrown = std::current_exception();
    }
    end(client);
    if (thrown) log_exception("control", thrown);
}

Task<void> ControlServer::Impl::talk(std::shared_ptr<Client> client) {
    for (;;) {
        client->idle.expires_after(settings.idle);
        client->idle.async_wait([weak = std::weak_ptr(client)](const asio::error_code& cancelled) {
            asio::error_code ignored;
            if (const auto at = weak.lock(); at && !cancelled) at->socket.close(ignored);
        });
        asio::error_code error;
        const auto octets =
            co_await asio::async_read_until(client->socket, asio::dynamic_buffer(client->in, settings.request_octets),
                                            '\n', asio::redirect_error(asio::use_awaitable, error));
        client->idle.cancel();
        if (error == asio::error::not_found)
            client->queue_line(error_line(
                {Reaction::reject, 0, fmt::format("the request is longer than {} octets", settings.request_octets)}));
        if (error || !client->socket.is_open()) break;
        auto line = client->in.substr(0, octets - 1);
        client->in.erase(0, octets);
        co_await handle(client, std::move(line));
        if (!client->socket.is_open()) break;
    }
}

Task<void> ControlServer::Impl::handle(std::shared_ptr<Client> client, std::string line) {
    ++counters.requests;
    const auto refuse = [&](Reaction reaction, std::string text) {
        ++counters.refused;
        client->queue_line(error_line({reaction, 0, std::move(text)}));
    };
    const auto request = parse_request(line);
    if (!request) co_return refuse(Reaction::reject, request.error().text);
    const auto at = commands.find(request->command);
    if (at == commands.end())
        co_return refuse(Reaction::reject,
                         fmt::format("\"{}\" is no command of this version", log::escape(request->command)));
    if (at->second.needed == Rights::admin && client->rights_ != Rights::admin)
        co_return refuse(
            Reaction::refused,
            fmt::format("{} needs admin rights: run it as root or as the user of gmgated", request->command));
    if (at->second.needed == Rights::admin)
        log::notice(
            "control-command",
            {{"command", request->command}, {"arguments", request->arguments.dump()}, {"client", client->who_}});
    std::optional<std::string> thrown;
    try {
        auto result = co_await at->second.run(request->arguments, *client);
        if (result) client->queue_line(answer_line(*result));
        else refuse(result.error().reaction, result.error().text);
    } catch (const std::exception& e) {  // our own fault; it ends this command and nothing else
        thrown = e.what();
    }
    if (!thrown) co_return;
    log::error("control-failed", {{"command", request->command}, {"reason", *thrown}});
    refuse(Reaction::internal, "the command failed: " + *thrown);
}

bool ControlServer::Impl::Client::queue_line(std::string line) {
    if (!socket.is_open()) return false;
    if (out.size() + line.size() > server.settings.queue_octets) {
        ++server.counters.overflows;
        log::notice("control-overflow", {{"client", who_}, {"why", "it does not read what it asked for"}});
        asio::error_code ignored;
        socket.close(ignored);
        return false;
    }
    out += line;
    if (writing) return true;
    for (const auto& shared : server.clients)
        if (shared.get() == this) {
            writing = true;
            spawn(server.executor, server.write(server.shared_from_this(), shared), "control-write");
            break;
        }
    return true;
}

Task<void> ControlServer::Impl::write([[maybe_unused]] std::shared_ptr<Impl> keep, std::shared_ptr<Client> client) {
    while (!client->out.empty() && client->socket.is_open()) {
        std::string chunk = client->out.substr(0, 65536);
        asio::error_code error;
        co_await asio::async_write(client->socket, asio::buffer(chunk),
                                   asio::redirect_error(asio::use_awaitable, error));
        if (error) {
            client->socket.close(error);
            break;
        }
        client->out.erase(0, chunk.size());
    }
    client->writing = false;
    if (!client->ending) co_return;
    client->socket.close();
    reserve.take();
}

// What is queued still goes out; then the socket closes.
void ControlServer::Impl::end(const std::shared_ptr<Client>& client) {
    client->ending = true;
    asio::error_code ignored;
    if (!client->writing) {
        client->socket.close(ignored);
        reserve.take();  // at once: others wait for a descriptor, too
    }
    clients.erase(client);
}

// ------------------------------------------------------------------------------------------
// API

ControlServer::ControlServer(asio::any_io_executor executor, ControlSettings settings)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(settings))) {}
ControlServer::~ControlServer() { close(); }

void ControlServer::add(std::string name, ControlCommand command) {
    impl_->commands.insert_or_assign(std::move(name), std::move(command));
}

Result<void> ControlServer::open(bool replace) {
    if (impl_->settings.path.empty()) return {};
    auto ok = impl_->open(replace);
    if (ok)
        spawn_lasting(
            impl_->executor, [impl = impl_] { return impl->accept(impl); }, "control-accept");
    return ok;
}

void ControlServer::close() {
    if (!impl_->is_open) return;
    impl_->is_open = false;
    asio::error_code ignored;
    impl_->acceptor.close(ignored);
    struct stat found {};
    if (lstat(impl_->settings.path.c_str(), &found) == 0 && std::pair{found.st_dev, found.st_ino} == impl_->place)
        unlink(impl_->settings.path.c_str());
    for (const auto& client : impl_->clients) client->socket.close(ignored);
}

const ControlCounters& ControlServer::counters() const { return impl_->counters; }
const std::map<std::string, ControlCommand>& ControlServer::commands() const { return impl_->commands; }

}  // namespace gmgate::daemon
