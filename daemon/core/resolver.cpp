#include "daemon/core/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "sip/message/headers.h"

namespace gmgate::daemon {

namespace {

constexpr int kTryMilliseconds = 2000;
constexpr int kTries = 2;
constexpr std::size_t kServices = 8;  // of NAPTR: each costs questions, and anybody may write many
constexpr std::uint16_t kSipPort = 5060, kSipsPort = 5061;

struct Reply {
    int status = ARES_ECANCELLED;
    std::vector<unsigned char> bytes;                ///< of a query for records
    std::vector<std::pair<Address, int>> addresses;  ///< of a query for addresses, with their TTLs
};

/// One query under way: c-ares holds one reference (through `argument`), the coroutine that waits the other.
struct Query {
    explicit Query(const asio::any_io_executor& executor) : done(executor, asio::steady_timer::time_point::max()) {}
    asio::steady_timer done;  ///< never expires; cancelled when the answer is there
    std::optional<Reply> answer;

    static void* argument(const std::shared_ptr<Query>& query) { return new std::shared_ptr<Query>(query); }
    static std::shared_ptr<Query> take(void* argument) {
        const std::unique_ptr<std::shared_ptr<Query>> held(static_cast<std::shared_ptr<Query>*>(argument));
        return *held;
    }
    void finish(Reply result) {
        answer = std::move(result);
        done.cancel();
    }
};

void on_records(void* argument, int status, int /*timeouts*/, unsigned char* bytes, int size) {
    const auto query = Query::take(argument);
    Reply answer;
    answer.status = status;
    if (status == ARES_SUCCESS && bytes != nullptr && size > 0) answer.bytes.assign(bytes, bytes + size);
    query->finish(std::move(answer));
}

void on_addresses(void* argument, int status, int /*timeouts*/, ares_addrinfo* result) {
    const auto query = Query::take(argument);
    Reply answer;
    answer.status = status;
    if (result != nullptr) {
        for (const ares_addrinfo_node* node = result->nodes; node != nullptr; node = node->ai_next)
            if (const auto endpoint = Endpoint::from_sockaddr(node->ai_addr))
                answer.addresses.emplace_back(endpoint->address, node->ai_ttl);
        ares_freeaddrinfo(result);
    }
    query->finish(std::move(answer));
}

/// The least TTL of a reply's answer section (c-ares 1.18 gives none for NAPTR and SRV); nullopt when it cannot be read
/// (RFC 1035 §4.1).
std::optional<int> least_ttl(const std::vector<unsigned char>& reply) {
    constexpr std::size_t kHeader = 12, kQuestionTail = 4, kRecordTail = 10;
    const auto size = static_cast<int>(reply.size());
    if (reply.size() < kHeader) return std::nullopt;
    const auto u16 = [&](std::size_t at) { return static_cast<unsigned>(reply[at] << 8 | reply[at + 1]); };
    std::size_t at = kHeader;
    const auto skip_name = [&] {
        char* name = nullptr;
        long length = 0;
        if (at >= reply.size() ||
            ares_expand_name(reply.data() + at, reply.data(), size, &name, &length) != ARES_SUCCESS)
            return false;
        ares_free_string(name);
        at += static_cast<std::size_t>(length);
        return true;
    };
    for (unsigned i = 0; i < u16(4); ++i) {
        if (!skip_name()) return std::nullopt;
        at += kQuestionTail;
    }
    std::optional<int> least;
    for (unsigned i = 0; i < u16(6); ++i) {
        if (!skip_name() || at + kRecordTail > reply.size()) return std::nullopt;
        const auto ttl = static_cast<int>(std::min(0x7fffffffu, u16(at + 4) << 16 | u16(at + 6)));
        least = std::min(least.value_or(ttl), ttl);
        at += kRecordTail + u16(at + 8);
    }
    return least;
}

struct Found {
    std::vector<Target> targets;
    int ttl = 0;
    std::string failure;  ///< why there are none
};

std::string_view srv_prefix(CoreTransport transport) {
    switch (transport) {
        case CoreTransport::udp:
            return "_sip._udp.";
        case CoreTransport::tcp:
            return "_sip._tcp.";
        case CoreTransport::tls:
            return "_sips._tcp.";
    }
    return "_sip._udp.";
}

struct Service {
    int order, preference;
    CoreTransport transport;
    std::string replacement;
};

/// The NAPTR records of use, most preferred first: flag "s" and a service of RFC 3263 §4.1 that we speak, TLS alone
/// when the core is spoken to by TLS, and never otherwise.
std::vector<Service> services_of(const std::vector<unsigned char>& reply, bool over_tls) {
    std::vector<Service> services;
    ares_naptr_reply* list = nullptr;
    if (ares_parse_naptr_reply(reply.data(), static_cast<int>(reply.size()), &list) != ARES_SUCCESS) return services;
    for (const ares_naptr_reply* record = list; record != nullptr; record = record->next) {
        const std::string_view flags(reinterpret_cast<const char*>(record->flags)),
            service(reinterpret_cast<const char*>(record->service));
        if (!sip::same_token(flags, "s")) continue;
        if (over_tls) {
            if (sip::same_token(service, "SIPS+D2T"))
                services.push_back({record->order, record->preference, CoreTransport::tls, record->replacement});
            continue;
        }
        if (sip::same_token(service, "SIP+D2U"))
            services.push_back({record->order, record->preference, CoreTransport::udp, record->replacement});
        if (sip::same_token(service, "SIP+D2T"))
            services.push_back({record->order, record->preference, CoreTransport::tcp, record->replacement});
    }
    ares_free_data(list);
    std::ranges::stable_sort(services, [](const Service& a, const Service& b) {
        return std::pair(a.order, a.preference) < std::pair(b.order, b.preference);
    });
    if (services.size() > kServices) services.resize(kServices);
    return services;
}

}  // namespace

struct Resolver::Impl : std::enable_shared_from_this<Impl> {
    /// A socket of c-ares, watched on the loop. c-ares opens and closes it.
    struct Watch {
        explicit Watch(const asio::any_io_executor& executor) : descriptor(executor) {}
        asio::posix::stream_descriptor descriptor;
        bool wants_read = false, wants_write = false, waits_read = false, waits_write = false;
    };
    struct Entry {
        std::vector<Target> targets;
        std::string failure;
        TimePoint fresh_until{}, stale_until{};
        bool under_way = false;
    };
    using Key = std::pair<std::string, int>;  ///< name, and port with transport

    Impl(asio::any_io_executor e, const Clock& c, std::optional<Family> f, ResolverLimits l, Admits a)
        : executor(std::move(e)),
          clock(c),
          family(f),
          limits(l),
          admits(std::move(a)),
          timer(executor),
          changed(executor, asio::steady_timer::time_point::max()) {}
    ~Impl() {
        if (channel != nullptr) ares_destroy(channel);
    }

    void open(const std::vector<Endpoint>& servers);
    static void on_socket(void* self, ares_socket_t socket, int readable, int writable) {
        static_cast<Impl*>(self)->watch(socket, readable != 0, writable != 0);
    }
    void watch(int socket, bool readable, bool writable);
    void arm(int socket, const std::shared_ptr<Watch>& watch);
    void arm_timer();

    Task<Reply> records(std::string name, int type);
    Task<Reply> addresses(std::string name);
    Task<Found> look_up(NextHop hop, CoreTransport otherwise);
    Task<Found> look_up_service(std::string service, CoreTransport transport, std::string host);
    Task<Found> look_up_host(std::string name, Port port, CoreTransport transport, std::string host);
    void make_room();

    asio::any_io_executor executor;
    const Clock& clock;
    std::optional<Family> family;
    ResolverLimits limits;
    Admits admits;
    ResolverCounters counters;
    ares_channel channel = nullptr;
    std::string broken;                             ///< why there is no channel
    std::map<int, std::shared_ptr<Watch>> watches;  ///< shared with the waits in flight
    asio::steady_timer timer;
    asio::steady_timer changed;  ///< never expires; cancelled whenever a look-up has ended
    std::map<Key, Entry> cache;
    std::size_t under_way = 0;
};

// ------------------------------------------------------------------------------------------------------- c-ares on the
// loop

void Resolver::Impl::open(const std::vector<Endpoint>& servers) {
    static const int library = ares_library_init(ARES_LIB_INIT_ALL);
    ares_options options{};
    options.timeout = kTryMilliseconds;
    options.tries = kTries;
    options.sock_state_cb = &Impl::on_socket;
    options.sock_state_cb_data = this;
    const int status =
        library != ARES_SUCCESS
            ? library
            : ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS) {
        channel = nullptr;
        broken = ares_strerror(status);
        return;
    }
    if (servers.empty()) return;
    std::string list;
    for (const Endpoint& server : servers) list += fmt::format("{}{}", list.empty() ? "" : ",", server.to_string());
    if (const int set = ares_set_servers_ports_csv(channel, list.c_str()); set != ARES_SUCCESS)
        broken = ares_strerror(set);
}

void Resolver::Impl::watch(int socket, bool readable, bool writable) {
    auto at = watches.find(socket);
    if (!readable && !writable) {  // c-ares closes it after this call
        if (at == watches.end()) return;
        at->second->descriptor.release();
        watches.erase(at);
        return;
    }
    if (at == watches.end()) {
        auto made = std::make_shared<Watch>(executor);
        asio::error_code error;
        made->descriptor.assign(socket, error);
        if (error) return;  // the timer still drives c-ares to its time-out
        at = watches.emplace(socket, std::move(made)).first;
    }
    at->second->wants_read = readable;
    at->second->wants_write = writable;
    arm(socket, at->second);
}

void Resolver::Impl::arm(int socket, const std::shared_ptr<Watch>& watch) {
    using asio::posix::descriptor_base;
    const auto wait = [&](descriptor_base::wait_type what, bool wanted, bool Watch::*waits, bool for_read) {
        if (!wanted || watch.get()->*waits) return;
        watch.get()->*waits = true;
        watch->descriptor.async_wait(what, [weak = weak_from_this(), watch, waits, socket,
                                            for_read](const asio::error_code& error) {
            watch.get()->*waits = false;
            const auto self = weak.lock();
            if (error || !self || self->channel == nullptr) return;
            ares_process_fd(self->channel, for_read ? socket : ARES_SOCKET_BAD, for_read ? ARES_SOCKET_BAD : socket);
            if (const auto at = self->watches.find(socket); at != self->watches.end() && at->second == watch)
                self->arm(socket, watch);
            self->arm_timer();
        });
    };
    wait(descriptor_base::wait_read, watch->wants_read, &Watch::waits_read, true);
    wait(descriptor_base::wait_write, watch->wants_write, &Watch::waits_write, false);
}

void Resolver::Impl::arm_timer() {
    timeval left{};
    if (ares_timeout(channel, nullptr, &left) == nullptr) {
        timer.cancel();
        return;
    }
    timer.expires_after(std::chrono::seconds{left.tv_sec} + std::chrono::microseconds{left.tv_usec} +
                        std::chrono::milliseconds{1});
    timer.async_wait([weak = weak_from_this()](const asio::error_code& error) {
        const auto self = weak.lock();
        if (error || !self || self->channel == nullptr) return;
        ares_process_fd(self->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        self->arm_timer();
    });
}

Task<Reply> Resolver::Impl::records(std::string name, int type) {
    if (!broken.empty()) co_return Reply{};
    ++counters.queries;
    const auto query = std::make_shared<Query>(executor);
    ares_query(channel, name.c_str(), C_IN, type, &on_records, Query::argument(query));
    arm_timer();
    asio::error_code cancelled;
    while (!query->answer) co_await query->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    co_return std::move(*query->answer);
}

Task<Reply> Resolver::Impl::addresses(std::string name) {
    if (!broken.empty()) co_return Reply{};
    ++counters.queries;
    const auto query = std::make_shared<Query>(executor);
    ares_addrinfo_hints hints{};
    hints.ai_family = !family ? AF_UNSPEC : family == Family::v4 ? AF_INET : AF_INET6;
    hints.ai_flags = ARES_AI_NOSORT;
    ares_getaddrinfo(channel, name.c_str(), nullptr, &hints, &on_addresses, Query::argument(query));
    arm_timer();
    asio::error_code cancelled;
    while (!query->answer) co_await query->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    co_return std::move(*query->answer);
}

// ---------------------------------------------------------------------------------------------------------- RFC 3263
// §4

Task<Found> Resolver::Impl::look_up(NextHop hop, CoreTransport otherwise) {
    if (hop.endpoint.port.value != 0)  // §4.1, §4.2: a port means that neither NAPTR nor SRV is asked
        co_return co_await look_up_host(hop.host, hop.endpoint.port, hop.transport.value_or(otherwise), hop.host);

    if (!hop.transport) {
        const Reply naptr = co_await records(hop.host, ns_t_naptr);
        if (naptr.status == ARES_SUCCESS) {
            const int ttl = least_ttl(naptr.bytes).value_or(0);
            for (const Service& service : services_of(naptr.bytes, otherwise == CoreTransport::tls)) {
                Found found = co_await look_up_service(service.replacement, service.transport, hop.host);
                if (found.targets.empty()) continue;
                found.ttl = std::min(found.ttl, ttl);
                co_return found;
            }
        }
    }
    const CoreTransport first = hop.transport.value_or(otherwise);
    Found found = co_await look_up_service(std::string(srv_prefix(first)) + hop.host, first, hop.host);
    if (!found.targets.empty()) co_return found;
    if (!hop.transport && first != CoreTransport::tls) {
        const CoreTransport other = first == CoreTransport::udp ? CoreTransport::tcp : CoreTransport::udp;
        found = co_await look_up_service(std::string(srv_prefix(other)) + hop.host, other, hop.host);
        if (!found.targets.empty()) co_return found;
    }
    const Port port = first == CoreTransport::tls ? Port{kSipsPort} : Port{kSipPort};
    co_return co_await look_up_host(hop.host, port, first, hop.host);
}

Task<Found> Resolver::Impl::look_up_service(std::string service, CoreTransport transport, std::string host) {
    Found result;
    const Reply srv = co_await records(service, ns_t_srv);
    ares_srv_reply* list = nullptr;
    if (srv.status != ARES_SUCCESS ||
        ares_parse_srv_reply(srv.bytes.data(), static_cast<int>(srv.bytes.size()), &list) != ARES_SUCCESS) {
        result.failure = fmt::format("{}: {}", service, ares_strerror(srv.status));
        co_return result;
    }
    struct Place {
        std::string name;
        Port port;
        std::uint32_t priority, weight;
    };
    std::vector<Place> places;
    for (const ares_srv_reply* record = list; record != nullptr && places.size() < limits.targets;
         record = record->next)
        if (record->host[0] != '\0')
            places.push_back({record->host, Port{record->port}, record->priority, record->weight});
    ares_free_data(list);
    result.ttl = least_ttl(srv.bytes).value_or(0);
    for (const Place& place : places) {
        Found found = co_await look_up_host(place.name, place.port, transport, host);
        if (found.targets.empty()) {
            result.failure = std::move(found.failure);
            continue;
        }
        result.ttl = std::min(result.ttl, found.ttl);
        for (Target& target : found.targets) {
            target.priority = place.priority;
            target.weight = place.weight;
            if (result.targets.size() < limits.targets) result.targets.push_back(std::move(target));
        }
    }
    co_return result;
}

Task<Found> Resolver::Impl::look_up_host(std::string name, Port port, CoreTransport transport, std::string host) {
    Found result;
    const Reply answer = co_await addresses(name);
    if (answer.addresses.empty())
        result.failure =
            fmt::format("{}: {}", name, answer.status == ARES_SUCCESS ? "no address" : ares_strerror(answer.status));
    for (const auto& [address, ttl] : answer.addresses) {
        if (result.targets.size() >= limits.targets || (family && address.family() != *family)) continue;
        if (admits && !admits({address, port})) {
            log::warning("dns-answer-refused",
                         {{"name", name}, {"answer", Endpoint{address, port}.to_string()}, {"next-hop", host}});
            result.failure = fmt::format("{}: {} is this gateway itself or nobody's address", name,
                                         Endpoint{address, port}.to_string());
            continue;
        }
        result.ttl = result.targets.empty() ? ttl : std::min(result.ttl, ttl);
        Target target;
        target.endpoint = {address, port};
        target.transport = transport;
        target.host = host;
        result.targets.push_back(std::move(target));
    }
    co_return result;
}

// --------------------------------------------------------------------------------------------------------------- the
// cache

void Resolver::Impl::make_room() {
    if (cache.size() < limits.names) return;
    auto oldest = cache.end();
    for (auto at = cache.begin(); at != cache.end(); ++at)
        if (!at->second.under_way && (oldest == cache.end() || at->second.fresh_until < oldest->second.fresh_until))
            oldest = at;
    if (oldest != cache.end()) cache.erase(oldest);
}

Resolver::Resolver(asio::any_io_executor executor, const Clock& clock, const std::vector<Endpoint>& servers,
                   std::optional<Family> family, ResolverLimits limits, Admits admits)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, family, limits, std::move(admits))) {
    impl_->open(servers);
}

Resolver::~Resolver() {
    impl_->broken = "the resolver is shut down";
    if (impl_->channel != nullptr)
        ares_cancel(impl_->channel);  // look-ups under way end now and let go of what they hold
}

const ResolverCounters& Resolver::counters() const { return impl_->counters; }
std::size_t Resolver::cached() const { return impl_->cache.size(); }

Task<Result<std::vector<Target>>> Resolver::resolve(NextHop hop, CoreTransport otherwise) {
    const std::shared_ptr<Impl> self = impl_;
    if (self->channel == nullptr || !self->broken.empty())
        co_return failure(Reaction::retry, "names cannot be looked up: " + self->broken);
    const int transport = hop.transport ? static_cast<int>(*hop.transport) + 1 : 0;
    const Impl::Key key(hop.host, hop.endpoint.port.value * 8 + transport);
    const auto answer_of = [&](const Impl::Entry& entry) -> Result<std::vector<Target>> {
        if (entry.targets.empty()) return failure(Reaction::retry, entry.failure);
        std::vector<Target> targets = entry.targets;
        for (Target& target : targets) target.priority += std::uint32_t{hop.priority} << 16;
        return targets;
    };
    for (;;) {  // again after each wait: the entry may have gone meanwhile
        const auto at = self->cache.find(key);
        if (at == self->cache.end()) break;
        if (!at->second.under_way) {
            if (at->second.fresh_until <= self->clock.now()) break;
            co_return answer_of(at->second);
        }
        if (!at->second.targets.empty() && at->second.stale_until > self->clock.now())
            co_return answer_of(at->second);  // meanwhile the old one serves
        asio::error_code cancelled;
        co_await self->changed.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    }
    if (self->under_way >= self->limits.queries) {
        ++self->counters.refused_limit;
        co_return failure(Reaction::retry, fmt::format("{}: too many names are being looked up", hop.host));
    }
    if (!self->cache.contains(key)) self->make_room();
    self->cache[key].under_way = true;
    ++self->under_way;
    Found found = co_await self->look_up(hop, otherwise);
    --self->under_way;

    Impl::Entry& entry = self->cache[key];
    const TimePoint now = self->clock.now();
    entry.under_way = false;
    if (found.targets.empty()) {
        ++self->counters.failures;
        entry.failure = found.failure.empty() ? hop.host + ": nothing found" : found.failure;
        entry.fresh_until = now + self->limits.failure;
        if (entry.stale_until <= now) entry.targets.clear();
        if (!entry.targets.empty()) ++self->counters.served_stale;
        log::warning(
            "dns-failed",
            {{"name", hop.host}, {"reason", entry.failure}, {"stale-answer", entry.targets.empty() ? "none" : "used"}});
    } else {
        const seconds life = std::clamp(seconds{found.ttl}, seconds{1}, self->limits.longest);
        entry.targets = std::move(found.targets);
        entry.fresh_until = now + life;
        entry.stale_until = entry.fresh_until + self->limits.stale;
    }
    self->changed.cancel();
    co_return answer_of(entry);
}

}  // namespace gmgate::daemon
