// The control socket: who may do what, hostile input, limits.
#include <doctest/doctest.h>

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "daemon/observe/kernel_statistics.h"
#include "daemon/operate/control_server.h"
#include "daemon/operate/reload.h"
#include "gmctl/client.h"

using namespace gmgate;
using namespace gmgate::daemon;
using Json = nlohmann::json;

namespace {

/// A server on a thread of its own, so that blocking clients can be used against it.
struct Served {
    explicit Served(const std::function<void(ControlSettings&)>& change = {}) {
        std::string pattern = "/tmp/gmgate-control.XXXXXX";
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        folder = pattern;
        settings.path = folder + "/made/control.sock";
        if (change) change(settings);
        server = std::make_unique<ControlServer>(loop.get_executor(), settings);
        server->add("echo", {Rights::read, "",
                             [](const Json& arguments, ControlClient&) -> Task<Result<Json>> { co_return arguments; }});
        server->add("order", {Rights::admin, "", [](const Json&, ControlClient& client) -> Task<Result<Json>> {
                                  co_return Json(client.who());
                              }});
        server->add("refuse", {Rights::read, "", [](const Json&, ControlClient&) -> Task<Result<Json>> {
                                   co_return failure(Reaction::reject, "because");
                               }});
        server->add("throw", {Rights::read, "", [](const Json&, ControlClient&) -> Task<Result<Json>> {
                                  throw std::runtime_error("boom");
                                  co_return Json();
                              }});
        server->add("count", {Rights::read, "", [](const Json&, ControlClient& client) -> Task<Result<Json>> {
                                  for (int i = 0; i < 3; ++i) client.send_event(i);
                                  co_return Json("done");
                              }});
        server->add("flood", {Rights::read, "", [this](const Json&, ControlClient& client) -> Task<Result<Json>> {
                                  const std::string much(100'000, 'x');
                                  asio::steady_timer turn(loop);
                                  while (client.send_event(much)) {
                                      turn.expires_after(std::chrono::milliseconds{0});
                                      co_await turn.async_wait(asio::use_awaitable);
                                  }
                                  flooded = true;
                                  co_return Json();
                              }});
        opened = server->open();
        if (opened) thread = std::thread([this] { loop.run(); });
    }
    ~Served() {
        asio::post(loop, [this] { server->close(); });
        if (thread.joinable()) thread.join();
        std::filesystem::remove_all(folder);
    }
    gmctl::Client client() const {
        auto made = gmctl::Client::connect(settings.path);
        REQUIRE_MESSAGE(made.has_value(), (made ? "" : made.error().text));
        return std::move(*made);
    }
    /// What comes back for raw bytes, up to the end of the connection or one line.
    std::string raw(const std::string& bytes) const {
        const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        settings.path.copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
        static_cast<void>(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
        std::string got;
        char chunk[4096];
        while (got.find('\n') == std::string::npos) {
            const auto n = recv(fd, chunk, sizeof chunk, 0);
            if (n <= 0) break;
            got.append(chunk, static_cast<std::size_t>(n));
        }
        close(fd);
        return got;
    }
    std::string folder;
    asio::io_context loop;
    ControlSettings settings;
    std::unique_ptr<ControlServer> server;
    Result<void> opened;
    std::atomic<bool> flooded = false;
    std::thread thread;
};

}  // namespace

TEST_CASE("control: an answer, events before it, a refusal and an exception reach the client as such") {
    Served served;
    REQUIRE(served.opened.has_value());
    auto client = served.client();
    CHECK(client.ask("echo", {{"a", 1}}) == Json{{"a", 1}});
    std::vector<int> events;
    CHECK(client.ask("count", Json::object(), [&](const Json& event) {
        events.push_back(event.get<int>());
        return true;
    }) == Json("done"));
    CHECK(events == std::vector<int>{0, 1, 2});
    CHECK(client.ask("refuse").error().text == "because");
    CHECK(client.ask("throw").error().text.find("boom") != std::string::npos);
    CHECK(client.ask("no-such").error().text.find("no command") != std::string::npos);
    CHECK(client.ask("echo", {{"still", "there"}}).has_value());
}

TEST_CASE("control: rights follow from the kernel's credentials and nothing else") {
    constexpr uid_t own = 990;
    constexpr gid_t group = 991;
    CHECK(rights_of({.uid = 0, .gid = 0}, own, group) == Rights::admin);
    CHECK(rights_of({.uid = own, .gid = 5}, own, {}) == Rights::admin);
    CHECK(rights_of({.uid = 1000, .gid = group}, own, group) == Rights::read);
    CHECK(rights_of({.uid = 1000, .gid = 1000, .groups = {4, group}}, own, group) == Rights::read);
    CHECK(rights_of({.uid = 1000, .gid = 1000, .groups = {4, 5}}, own, group) == Rights::none);
    CHECK(rights_of({.uid = 1000, .gid = group}, own, {}) == Rights::none);
    CHECK(rights_of({.uid = 1000, .gid = 0}, own, {}) == Rights::none);
}

TEST_CASE("control: the socket is its owner's alone, or also the group's") {
    Served alone;
    struct stat found {};
    REQUIRE(stat(alone.settings.path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777) == 0600);
    Served shared([](ControlSettings& settings) { settings.group = std::to_string(getegid()); });
    REQUIRE(stat(shared.settings.path.c_str(), &found) == 0);
    CHECK((found.st_mode & 0777) == 0660);
    CHECK(found.st_gid == getegid());
}

TEST_CASE("control: another user is turned away, a member of the group may read and not order") {
    REQUIRE_MESSAGE(geteuid() == 0, "this test changes its user and has to run as root");
    for (const bool member : {false, true}) {
        Served served([](ControlSettings& settings) { settings.group = "65500"; });
        REQUIRE(served.opened.has_value());
        REQUIRE(chmod(served.folder.c_str(), 0755) == 0);
        REQUIRE(chmod(served.settings.path.c_str(), 0666) == 0);  // so that the kernel's credentials alone decide
        int out[2];
        REQUIRE(pipe(out) == 0);
        const pid_t child = fork();
        if (child == 0) {
            const gid_t group = 65500;
            if (setgroups(member ? 1 : 0, &group) != 0 || setgid(65501) != 0 || setuid(65501) != 0) _exit(9);
            std::string said;
            auto made = gmctl::Client::connect(served.settings.path);
            if (made) {
                const auto read = made->ask("echo");
                said += read ? "read-ok;" : read.error().text + ";";
                const auto order = made->ask("order");
                said += order ? "order-ok" : order.error().text;
            }
            if (write(out[1], said.data(), said.size()) < 0) _exit(8);
            _exit(0);
        }
        close(out[1]);
        std::string said;
        char chunk[512];
        for (ssize_t n; (n = read(out[0], chunk, sizeof chunk)) > 0;) said.append(chunk, static_cast<std::size_t>(n));
        close(out[0]);
        int status = 0;
        REQUIRE(waitpid(child, &status, 0) == child);
        INFO(said);
        CHECK(status == 0);
        CHECK(said.find("order-ok") == std::string::npos);
        if (member) {
            CHECK(said.find("read-ok;") == 0);
            CHECK(said.find("admin rights") != std::string::npos);
        } else {
            CHECK(said.find("you may not use this socket") == 0);
        }
    }
}

TEST_CASE("control: hostile bytes get an error line and end nothing but their own request") {
    Served served;
    const std::string deep = std::string(2000, '[') + std::string(2000, ']');
    for (const std::string& bytes :
         {std::string("\n"), std::string("{\n"), std::string("[]\n"), std::string("null\n"),
          std::string("{\"command\":7}\n"), std::string("{\"command\":\"echo\",\"arguments\":[]}\n"),
          std::string("\xff\xfe\x00{\n", 5), "{\"command\":\"echo\",\"arguments\":{\"a\":" + deep + "}}\n",
          "{\"command\":\"" + std::string(5000, 'c') + "\"}\n", std::string("{\"command\":\"\xc3\x28\"}\n")}) {
        const auto answer = Json::parse(served.raw(bytes), nullptr, false);
        CAPTURE(bytes.substr(0, 60));
        REQUIRE(answer.is_object());
        CHECK(answer["ok"] == false);
    }
    CHECK(served.client().ask("echo").has_value());
}

TEST_CASE("control: a request without end is refused at the limit and the connection closed") {
    Served served([](ControlSettings& settings) { settings.request_octets = 1000; });
    const auto answer = served.raw(std::string(5000, ' '));
    CHECK(answer.find("longer than 1000 octets") != std::string::npos);
}

TEST_CASE("control: one client too many is told so; when another leaves there is room again") {
    Served served([](ControlSettings& settings) { settings.clients = 2; });
    {
        auto one = served.client(), two = served.client();
        REQUIRE(one.ask("echo").has_value());
        REQUIRE(two.ask("echo").has_value());
        auto three = served.client();
        CHECK(three.ask("echo").error().text.find("too many clients") != std::string::npos);
        CHECK(one.ask("echo").has_value());
    }
    bool room = false;
    for (int i = 0; i < 1000 && !room; ++i) room = served.client().ask("echo").has_value();
    CHECK(room);
}

TEST_CASE("control: a client that does not read is closed at the limit of its queue and holds nobody up") {
    Served served([](ControlSettings& settings) { settings.queue_octets = 1'000'000; });
    auto other = served.client();
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    served.settings.path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    const std::string request = "{\"command\":\"flood\"}\n";
    REQUIRE(send(fd, request.data(), request.size(), 0) == static_cast<ssize_t>(request.size()));
    for (int i = 0; i < 100000 && !served.flooded; ++i) REQUIRE(other.ask("echo").has_value());
    CHECK(served.flooded);
    close(fd);
}

TEST_CASE("control: a client that asks nothing is closed") {
    Served served([](ControlSettings& settings) { settings.idle = std::chrono::seconds{1}; });
    CHECK(served.raw("") == "");
}

TEST_CASE("control: a socket left by a dead process is taken over, a living one and a plain file are not") {
    Served first;
    ControlServer second(first.loop.get_executor(), first.settings);
    const auto refused = second.open();
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().text.find("another gmgated answers there") != std::string::npos);

    const auto left = first.folder + "/left.sock";
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    left.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    close(fd);
    Served over([&](ControlSettings& settings) { settings.path = left; });
    CHECK(over.opened.has_value());

    const auto plain = first.folder + "/plain";
    std::ofstream(plain) << "precious";
    Served never([&](ControlSettings& settings) { settings.path = plain; });
    REQUIRE_FALSE(never.opened.has_value());
    CHECK(never.opened.error().text.find("no socket lies there") != std::string::npos);
    CHECK(std::filesystem::file_size(plain) == 8);
}

TEST_CASE("control: who takes over gets the place, and the one before does not remove it when it ends") {
    Served first;
    auto settings = first.settings;
    {
        ControlServer before(first.loop.get_executor(), settings);
        REQUIRE(before.open(true).has_value());
        ControlServer after(first.loop.get_executor(), settings);
        REQUIRE(after.open(true).has_value());
        before.close();
        CHECK(std::filesystem::exists(settings.path));
        after.close();
        CHECK_FALSE(std::filesystem::exists(settings.path));
    }
}

TEST_CASE("control: a group that does not exist is an error with the fix") {
    Served served([](ControlSettings& settings) { settings.group = "no-such-group-here"; });
    REQUIRE_FALSE(served.opened.has_value());
    CHECK(served.opened.error().text.find("addgroup") != std::string::npos);
}

TEST_CASE("control: arguments of the wrong type or size are refused by name") {
    const Json arguments{
        {"text", 7}, {"number", "x"}, {"big", 18446744073709551615ULL}, {"flag", 1}, {"long", std::string(5000, 'a')}};
    CHECK(text_argument(arguments, "text").error().text.find("\"text\"") != std::string::npos);
    CHECK_FALSE(text_argument(arguments, "long").has_value());
    CHECK(text_argument(arguments, "absent", "x") == "x");
    CHECK_FALSE(number_argument(arguments, "number", 0, 0, 10).has_value());
    CHECK_FALSE(number_argument(arguments, "big", 0, 0, 10).has_value());
    CHECK_FALSE(flag_argument(arguments, "flag").has_value());
}

TEST_CASE("kernel statistics: every line that the kernel writes has a meaning, and what is none is skipped") {
    const auto found = parse_statistics(
        "XfrmInNoStates          \t3\nXfrmFuture 9\nnonsense\n\nXfrmInError x\nTlsCurrTxSw                     \t4");
    REQUIRE(found.size() == 3);
    CHECK(found[0].value == 3);
    CHECK_FALSE(found[0].means.empty());
    CHECK(found[1].means.empty());
    CHECK(value_of(found, "TlsCurrTxSw") == 4);
    CHECK(value_of(found, "absent") == 0);
}

namespace {
Config config_of(const std::string& top, const std::string& interface) {
    const auto config = parse_config(top + R"(
[core]
listen = "10.2.0.1:5060"
next-hop = "10.2.0.2:5060"
visited-network-id = "v"
[[ims-aka-profile]]
name = "volte"
protected-server-port = [6100, 6101]
start-protected-client-port = 6200
end-protected-client-port = 6203
[[sip-interface]]
realm-id = "access"
sec-agree-feature = "enabled"
)" + interface + R"(
[[sip-interface.sip-ports]]
address = "10.1.0.1"
ims-aka-profile = "volte"
)",
                                     "test");
    REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().text));
    return *config;
}
}  // namespace

TEST_CASE("reload: what the next REGISTER reads is applied, the rest refused with its reason, nothing is passed over") {
    auto live = config_of("log-level = \"info\"\n", "");
    const auto* interface = &live.sip_interfaces[0];
    auto fresh = config_of("log-level = \"debug\"\nktls = \"off\"\n", "strict-refresh = true\nhost = \"p.example\"\n");
    fresh.settings["core.next-hop"] = "'10.2.0.3:5060'";
    fresh.core.next_hops[0].endpoint.address = *Address::parse("10.2.0.3");
    const auto report = apply_reload(live, fresh);
    REQUIRE(report.applied.size() == 3);
    CHECK(live.core.next_hops[0].to_string() == "10.2.0.3:5060");
    CHECK(live.log_level == "debug");
    CHECK(live.sip_interfaces[0].strict_refresh);
    CHECK(interface == &live.sip_interfaces[0]);
    REQUIRE(report.refused.size() == 2);
    for (const auto& change : report.refused) CHECK(change.why.find("restart") != std::string::npos);
    CHECK(live.ktls == Ktls::preferred);
    CHECK(live.sip_interfaces[0].host.empty());
    CHECK(apply_reload(live, fresh).applied.empty());      // applied once
    CHECK(apply_reload(live, fresh).refused.size() == 2);  // told again each time
}

TEST_CASE("reload: what phones get and which algorithms changes at once, unless a door for it is not open") {
    auto live = config_of("", "");
    const auto* profile = &live.ims_aka_profiles.front();
    auto fresh = config_of("", "");
    fresh.settings["ims-aka-profile[0].refuse-deprecated"] = "true";
    std::erase_if(fresh.ims_aka_profiles.front().preference, is_deprecated);
    fresh.settings["sip-interface[0].sec-agree-feature"] = "'disabled'";
    fresh.sip_interfaces[0].sec_agree_feature = false;
    auto report = apply_reload(live, fresh);
    CHECK(report.refused.empty());
    CHECK(report.applied.size() == 2);
    CHECK(profile == &live.ims_aka_profiles.front());
    CHECK(std::ranges::none_of(profile->preference, is_deprecated));
    CHECK_FALSE(live.sip_interfaces[0].sec_agree_feature);

    fresh.sip_interfaces[0].sec_agree_feature = true;
    fresh.sip_interfaces[0].sec_agree_pref = SecAgreePref::ipsec3gpp_tls;
    fresh.settings["sip-interface[0].sec-agree-feature"] = "'enabled'";
    fresh.settings["sip-interface[0].sec-agree-pref"] = "'ipsec3gpp-tls'";
    report = apply_reload(live, fresh);
    CHECK(report.applied.empty());
    REQUIRE(report.refused.size() == 2);
    CHECK(report.refused[0].why.find("no TLS port is open") != std::string::npos);
    CHECK_FALSE(live.sip_interfaces[0].sec_agree_feature);

    fresh.core.listen.front().port = Port{5070};
    fresh.settings["core.listen"] = "'changed'";
    fresh.settings["core.next-hop"] = "'changed'";
    report = apply_reload(live, fresh);
    CHECK(report.applied.empty());
    for (const auto& change : report.refused)
        CHECK_MESSAGE(change.why.find("restart") != std::string::npos, change.key);
}

TEST_CASE("reload: interfaces that changed places keep their settings") {
    auto live = config_of("", "");
    auto fresh = config_of("", "ignore-q = true\n");
    fresh.sip_interfaces[0].realm_id = "other";
    const auto report = apply_reload(live, fresh);
    CHECK(report.applied.empty());
    CHECK_FALSE(live.sip_interfaces[0].ignore_q);
}
