#include "xfrm/engine/client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <asio/async_result.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/rights.h"
#include "base/secret.h"
#include "xfrm/engine/socket.h"

namespace gmgate::xfrm {
namespace {

constexpr std::size_t kWindow = GM_IN_FLIGHT_LIMIT / 2;  // under way at once; the rest waits here
constexpr std::chrono::milliseconds kSweep{500};
constexpr int kFirstStart = 4;  // times `patience`: its crypto modules are loaded and every algorithm pair is tried
constexpr int kTries = 2;       // of an install: one worker may die under it
constexpr std::size_t kIdsPerFrame = (GM_FRAME_LIMIT - sizeof(gm_header)) / sizeof(gm_sa_id);

std::string end_of(int status) {
    if (WIFSIGNALED(status)) return fmt::format("killed by signal {}", WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return "its program could not be started";
    if (WIFEXITED(status)) return fmt::format("it ended with status {}; its own lines say why", WEXITSTATUS(status));
    return "it is gone";
}

void add(KernelCounters& sum, const KernelCounters& more) {
    sum.requests += more.requests;
    sum.system_calls += more.system_calls;
    sum.sets_installed += more.sets_installed;
    sum.sets_refused += more.sets_refused;
    sum.sets_removed += more.sets_removed;
    sum.rollbacks += more.rollbacks;
}

}  // namespace

struct EngineClient::Impl : std::enable_shared_from_this<EngineClient::Impl> {
    using Completion = std::move_only_function<void(Result<void>)>;
    struct Request {
        Frame frame{};                      ///< to be sent (again); of an install made from `order`
        std::optional<SetRequest> order{};  ///< of an install, until it is answered
        std::function<void(SaReport)> each{};
        std::function<void()> again{};
        std::function<void(ProbeFinding)> finding{};
        std::function<void(GuardPolicy)> standing{};
        std::function<void(const gm_sealed&)> sealed{};
        std::function<void(const gm_key&)> key{};
        Completion complete{};  ///< empty: given up, nobody waits any more
        std::chrono::steady_clock::time_point since{};
        int sends = 0;
        bool is_sent = false;
    };

    Impl(asio::any_io_executor e, int fd, ReqId r, Handlers h, std::chrono::milliseconds p)
        : executor(e), guard(e, fd), timer(e), reqid(r), handlers(std::move(h)), patience(p) {}

    Task<Result<void>> submit(Request request);
    void add_request(Request request);
    void send_waiting();
    void send(std::uint32_t sequence, Request& request);
    void finish(std::map<std::uint32_t, Request>::iterator at, Result<void> result);

    void wait_for_guard();
    void read_guard();
    void guardian_gone(std::string why);
    void connect(int fd);
    void take(std::span<std::uint8_t> frame);
    void take_answer(const gm_header& header, FrameReader& reader);
    template <class Element, class Take>
    void hand_on(const gm_header& header, FrameReader& reader, const Request& request, const Take& take);
    void take_done(const gm_done& done, std::map<std::uint32_t, Request>::iterator at);
    void protocol_error(const char* what);
    void worker_gone(std::string why);
    void take_up();
    void install_again(std::uint32_t sequence);
    void remove_behind(SetParameters parameters, Completion then);
    void sweep_later();
    void sweep();
    void close();

    asio::any_io_executor executor;
    asio::posix::stream_descriptor guard;
    asio::steady_timer timer;
    ReqId reqid;
    Handlers handlers;
    std::chrono::milliseconds patience;
    std::unique_ptr<FrameSocket> worker;   ///< from GM_WORKER_UP on
    std::unique_ptr<FrameSocket> retired;  ///< may be running its handler still
    bool is_ready = false;                 ///< GM_READY has come
    bool was_ready = false;                ///< some worker has served before
    int upcoming = -1;  ///< the next worker's socket, while the last words of the one before are read
    std::map<std::uint32_t, Request> requests;
    std::deque<std::uint32_t> waiting;
    std::size_t under_way = 0;
    std::uint32_t next_sequence = 1;
    std::chrono::steady_clock::time_point last_word = std::chrono::steady_clock::now();
    KernelCounters earlier;  ///< of workers that are gone
    EngineCounters now;
    KernelCounters sum;
    EngineStatus status{.engine = "", .is_up = false};
    std::uint64_t earlier_malformed = 0, earlier_forbidden = 0, earlier_flooded = 0;
    bool is_closed = false;
};

// -------------------------------------------------------------------------------------------------------------------
// requests

Task<Result<void>> EngineClient::Impl::submit(Request request) {
    if (is_closed) co_return failure(Reaction::broken, "the SA engine is not there any more");
    auto start = [this](auto handler, Request one) {
        one.complete = [executor = executor, resume = std::move(handler)](Result<void> result) mutable {
            asio::post(executor,
                       [then = std::move(resume), told = std::move(result)]() mutable { then(std::move(told)); });
        };
        add_request(std::move(one));
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<void>)>(
        std::move(start), asio::use_awaitable, std::move(request));
}

void EngineClient::Impl::add_request(Request request) {
    const auto sequence = next_sequence++;
    if (next_sequence == 0) next_sequence = 1;
    request.since = std::chrono::steady_clock::now();
    if (requests.empty()) last_word = request.since;
    requests.emplace(sequence, std::move(request));
    waiting.push_back(sequence);
    send_waiting();
}

void EngineClient::Impl::send_waiting() {
    while (is_ready && worker && !waiting.empty() && under_way < kWindow) {
        const auto at = requests.find(waiting.front());
        waiting.pop_front();
        if (at != requests.end() && !at->second.is_sent) send(at->first, at->second);
    }
}

void EngineClient::Impl::send(std::uint32_t sequence, Request& request) {
    Frame frame = request.frame;
    if (request.order) {
        auto install = to_frame(*request.order, reqid);
        frame = FrameWriter(GM_INSTALL_SET, sequence).add(install).finish();
        wipe(&install, sizeof install);
    }
    reinterpret_cast<gm_header*>(frame.data())->sequence = sequence;
    request.is_sent = true;
    ++request.sends;
    ++under_way;
    worker->send(std::move(frame));
}

void EngineClient::Impl::finish(std::map<std::uint32_t, Request>::iterator at, Result<void> result) {
    if (at->second.is_sent) --under_way;
    auto complete = std::move(at->second.complete);
    requests.erase(at);
    if (complete) complete(std::move(result));
    send_waiting();
}

// -------------------------------------------------------------------------------------------------------------------
// guardian

void EngineClient::Impl::wait_for_guard() {
    guard.async_wait(asio::posix::stream_descriptor::wait_read,
                     [weak = weak_from_this()](const asio::error_code& error) {
                         const auto self = weak.lock();
                         if (!self || error || self->is_closed) return;
                         self->read_guard();
                         if (!self->is_closed) self->wait_for_guard();
                     });
}

void EngineClient::Impl::read_guard() {
    std::array<std::uint8_t, sizeof(gm_header) + sizeof(gm_worker)> frame{};
    const auto [size, fd] = receive_with_descriptor(guard.native_handle(), frame.data(), frame.size(), MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) return guardian_gone(size == 0 ? "it has ended" : std::strerror(errno));
    FrameReader reader({frame.data(), static_cast<std::size_t>(size)});
    const auto told = reader.take<gm_worker>();
    if (!reader.is_complete() || reader.header().version != GM_PROTOCOL_VERSION) {
        if (fd >= 0) ::close(fd);
        return guardian_gone("it says what nobody understands: gmgated and gmgate-xfrmd are not of one release");
    }
    if (reader.header().kind == GM_WORKER_DOWN) {
        if (handlers.on_down) handlers.on_down(end_of(told.status));
        return;
    }
    if (reader.header().kind != GM_WORKER_UP || fd < 0) return;
    status.starts = told.starts;
    status.pid = told.pid;
    if (upcoming >= 0) ::close(std::exchange(upcoming, -1));  // died before it was taken up
    if (worker) upcoming = fd;
    else connect(fd);
}

void EngineClient::Impl::guardian_gone(std::string why) {
    if (is_closed) return;
    close();
    if (handlers.on_guardian_gone) handlers.on_guardian_gone(std::move(why));
}

// ---------------------------------------------------------------------------------------------------------------------
// worker

void EngineClient::Impl::connect(int fd) {
    retired.reset();
    worker = std::make_unique<FrameSocket>(executor, fd);
    last_word = std::chrono::steady_clock::now();
    worker->start(
        [weak = weak_from_this()](std::span<std::uint8_t> frame) {
            if (const auto self = weak.lock()) self->take(frame);
        },
        [weak = weak_from_this()](std::string why) {
            if (const auto self = weak.lock()) self->worker_gone(std::move(why));
        });
}

void EngineClient::Impl::protocol_error(const char* what) {
    worker->close();
    asio::post(executor, [self = shared_from_this(), why = std::string("it sent ") + what] { self->worker_gone(why); });
}

void EngineClient::Impl::worker_gone([[maybe_unused]] std::string why) {
    if (is_closed || !worker) return;
    is_ready = false;
    status.is_up = false;
    retired = std::move(worker);  // its handler may be what runs now
    add(earlier, now.kernel);
    earlier_malformed += now.malformed;
    earlier_forbidden += now.forbidden;
    earlier_flooded += now.flooded;
    now = {};
    const auto moment = std::chrono::steady_clock::now();
    for (auto& [sequence, request] : requests) request.since = moment;
    if (upcoming >= 0) connect(std::exchange(upcoming, -1));
}

void EngineClient::Impl::take(std::span<std::uint8_t> frame) {
    if (is_closed) return;
    last_word = std::chrono::steady_clock::now();
    FrameReader reader(frame);
    const auto header = reader.header();
    if (header.version != GM_PROTOCOL_VERSION) return protocol_error("a frame of another version");
    switch (header.kind) {
        case GM_READY: {
            const auto ready = reader.take<gm_ready>();
            const auto engine = text_of(ready.engine);
            if (!reader.is_complete() || !engine || is_ready) return protocol_error("a strange greeting");
            status.engine = *engine;
            status.pid = ready.pid;
            return take_up();
        }
        case GM_EVENT: {
            const auto event = value_of(reader.take<gm_event>());
            if (!reader.is_complete() || !event) return protocol_error("a strange event");
            if (handlers.on_event) handlers.on_event(*event);
            return;
        }
        default:
            return take_answer(header, reader);
    }
}

// A list, one by one; nobody gets it when its asker has given up.
template <class Element, class Take>
void EngineClient::Impl::hand_on(const gm_header& header, FrameReader& reader, const Request& request,
                                 const Take& take) {
    if (!reader.is_list_of(sizeof(Element))) return protocol_error("a strange list");
    for (std::uint32_t i = 0; i < header.count; ++i) {
        auto one = value_of(reader.take<Element>());
        if (!one) return protocol_error("a strange element of a list");
        if (take && request.complete) take(std::move(*one));
    }
}

void EngineClient::Impl::take_answer(const gm_header& header, FrameReader& reader) {
    const auto at = requests.find(header.sequence);
    if (at == requests.end() || !at->second.is_sent) return protocol_error("an answer that nobody asked for");
    auto& request = at->second;
    switch (header.kind) {
        case GM_DONE: {
            const auto done = reader.take<gm_done>();
            if (!reader.is_complete()) return protocol_error("a strange answer");
            return take_done(done, at);
        }
        case GM_REPORTS:
            return hand_on<gm_report>(header, reader, request, request.each);
        case GM_FINDINGS:
            return hand_on<gm_finding>(header, reader, request, request.finding);
        case GM_GUARDS:
            return hand_on<gm_guard>(header, reader, request, request.standing);
        case GM_SEALED: {
            const auto sealed = reader.take<gm_sealed>();
            if (!reader.is_complete() || header.count != 1) return protocol_error("strange sealed keys");
            if (request.sealed && request.complete) request.sealed(sealed);
            return;
        }
        case GM_KEY: {
            const auto key = reader.take<gm_key>();
            if (!reader.is_complete() || header.count != 1) return protocol_error("a strange key");
            if (request.key && request.complete) request.key(key);
            return;
        }
        case GM_AGAIN:
            if (request.again && request.complete) request.again();
            return;
        default:
            return protocol_error("a frame of an unknown kind");
    }
}

void EngineClient::Impl::take_done(const gm_done& done, std::map<std::uint32_t, Request>::iterator at) {
    auto result = value_of(done);
    if (!result) return protocol_error("a strange outcome");
    now = value_of(done.counters);
    // Nobody waits for this set any more; its caller was told that it is not there.
    if (*result && at->second.order && !at->second.complete) remove_behind(at->second.order->parameters, {});
    finish(at, std::move(*result));
}

// GM_READY: what was under way is done by this worker.
void EngineClient::Impl::take_up() {
    is_ready = true;
    status.is_up = true;
    const bool is_another = std::exchange(was_ready, true);
    if (handlers.on_up) handlers.on_up();
    under_way = 0;
    waiting.clear();
    std::vector<std::uint32_t> given_up;
    for (auto& [sequence, request] : requests) {
        const bool was_sent = std::exchange(request.is_sent, false);
        if (request.order && was_sent) continue;  // below
        if (!request.complete) {
            given_up.push_back(sequence);
            continue;
        }
        if (was_sent && request.again) request.again();
        waiting.push_back(sequence);
    }
    for (const auto sequence : given_up) requests.erase(sequence);
    std::vector<std::uint32_t> installs;
    for (auto& [sequence, request] : requests)
        if (request.order && request.sends != 0) installs.push_back(sequence);
    for (const auto sequence : installs) install_again(sequence);
    send_waiting();
    if (is_another && handlers.on_event) {
        KernelEvent lost;
        lost.kind = KernelEvent::Kind::events_lost;
        handlers.on_event(lost);
    }
}

// How far the dead worker had got nobody knows: what there is of the set goes, and only when it is gone the set is
// installed anew or given up.
void EngineClient::Impl::install_again(std::uint32_t sequence) {
    const auto at = requests.find(sequence);
    std::erase(waiting, sequence);
    remove_behind(at->second.order->parameters, [weak = weak_from_this(), sequence](Result<void> removed) {
        const auto self = weak.lock();
        if (!self) return;
        const auto one = self->requests.find(sequence);
        if (one == self->requests.end() || one->second.is_sent) return;
        if (!removed) return self->finish(one, std::move(removed));
        if (!one->second.complete || one->second.sends >= kTries)
            return self->finish(one, failure(Reaction::broken, "the SA engine died twice while it installed this set"));
        self->waiting.push_front(sequence);
        self->send_waiting();
    });
}

// A removal of our own; its caller's place is `then`.
void EngineClient::Impl::remove_behind(SetParameters parameters, Completion then) {
    Request removal;
    removal.frame = FrameWriter(GM_REMOVE_SET).add(to_frame(parameters)).finish();
    removal.complete = [complete = std::move(then)](Result<void> result) mutable {
        if (complete) complete(std::move(result));
    };
    add_request(std::move(removal));
}

// --------------------------------------------------------------------------------------------------------------------
// patience

void EngineClient::Impl::sweep_later() {
    timer.expires_after(kSweep);
    timer.async_wait([weak = weak_from_this()](const asio::error_code& error) {
        const auto self = weak.lock();
        if (!self || error || self->is_closed) return;
        self->sweep();
        self->sweep_later();
    });
}

// No worker for too long, or one that says nothing: nobody waits for ever. What was sent is remembered: its effect may
// still come.
void EngineClient::Impl::sweep() {
    const auto moment = std::chrono::steady_clock::now();
    const bool is_silent = is_ready && under_way != 0 && moment - last_word > patience;
    const auto limit = was_ready ? patience : kFirstStart * patience;
    std::vector<std::uint32_t> late;
    for (const auto& [sequence, request] : requests)
        if (request.complete && moment - request.since > limit && (!is_ready || is_silent)) late.push_back(sequence);
    for (const auto sequence : late) {
        const auto at = requests.find(sequence);
        if (at == requests.end()) continue;
        const auto why =
            is_ready    ? failure(Reaction::broken, "the SA engine does not answer", ETIMEDOUT)
            : was_ready ? failure(Reaction::retry, "the SA engine is being started again", ETIMEDOUT)
                        : failure(Reaction::retry, "the SA engine has not started: its own lines say why", ETIMEDOUT);
        auto complete = std::exchange(at->second.complete, {});
        if (at->second.sends == 0) requests.erase(at);
        if (complete) complete(why);
    }
}

void EngineClient::Impl::close() {
    if (std::exchange(is_closed, true)) return;
    timer.cancel();
    asio::error_code ignored;
    guard.close(ignored);
    if (worker) worker->close();
    if (upcoming >= 0) ::close(std::exchange(upcoming, -1));
    is_ready = false;
    status.is_up = false;
    auto left = std::exchange(requests, {});
    waiting.clear();
    under_way = 0;
    for (auto& [sequence, request] : left)
        if (request.complete) request.complete(failure(Reaction::broken, "the SA engine is not there any more"));
}

// -------------------------------------------------------------------------------------------------------------------
// interface

EngineClient::EngineClient(asio::any_io_executor executor, int guard, ReqId reqid, Handlers handlers,
                           std::chrono::milliseconds patience)
    : impl_(std::make_shared<Impl>(std::move(executor), guard, reqid, std::move(handlers), patience)) {
    impl_->wait_for_guard();
    impl_->sweep_later();
}

EngineClient::~EngineClient() {
    impl_->handlers = {};
    impl_->close();
}

Task<Result<void>> EngineClient::install_set(SetRequest request) {
    if (!fits(request.parameters.algorithms, request.keys))
        co_return failure(Reaction::internal, "not an SA set: the keys do not fit the algorithms");
    if (request.lifetime.count() <= 0)
        co_return failure(Reaction::internal, "not an SA set: the lifetime is not positive");
    Impl::Request one;
    one.order.emplace(std::move(request));
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<void>> EngineClient::remove_set(SetParameters parameters) {
    Impl::Request one;
    one.frame = FrameWriter(GM_REMOVE_SET).add(to_frame(parameters)).finish();
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<void>> EngineClient::extend_set(SetParameters parameters, std::chrono::seconds lifetime) {
    if (lifetime.count() <= 0) co_return failure(Reaction::internal, "a lifetime must be positive");
    const auto seconds = static_cast<std::uint32_t>(std::min<std::chrono::seconds::rep>(lifetime.count(), 0xffffffff));
    Impl::Request one;
    one.frame = FrameWriter(GM_EXTEND_SET).add(gm_extend{.set = to_frame(parameters), .lifetime = seconds}).finish();
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<void>> EngineClient::follow_nat(SetParameters parameters, Port port_uenc) {
    Impl::Request one;
    one.frame = FrameWriter(GM_FOLLOW_NAT).add(to_frame(parameters, port_uenc)).finish();
    co_return co_await impl_->submit(std::move(one));
}

namespace {

Frame guards_frame(gm_kind kind, const GuardRequest& request) {
    FrameWriter writer(kind, 0, static_cast<std::uint32_t>(request.ports.size()));
    writer.add(guards_frame_of(request));
    for (const auto port : request.ports) writer.add(port.value);
    return writer.finish();
}

}  // namespace

Task<Result<void>> EngineClient::install_guards(GuardRequest request) {
    if (request.ports.empty() && !request.nat) co_return Result<void>{};
    Impl::Request one;
    one.frame = guards_frame(GM_INSTALL_GUARDS, request);
    co_return co_await impl_->submit(std::move(one));
}

// The protocol has no such request: a gmgated that was taken over cannot open a port.
Task<Result<void>> EngineClient::remove_guards(GuardRequest) {
    co_return failure(Reaction::refused,
                      "an engine removes no guards; gmgated --remove-guards does, in its own process", EPERM);
}

Task<Result<std::vector<GuardPolicy>>> EngineClient::report_guards(GuardRequest request) {
    std::vector<GuardPolicy> standing;
    if (request.ports.empty() && !request.nat) co_return standing;
    Impl::Request one;
    one.frame = guards_frame(GM_REPORT_GUARDS, request);
    one.standing = [&standing](GuardPolicy guard) { standing.push_back(guard); };
    one.again = [&standing] { standing.clear(); };
    const auto told = co_await impl_->submit(std::move(one));
    if (!told) co_return std::unexpected(told.error());
    co_return standing;
}

Task<Result<void>> EngineClient::dump_each(std::function<void(SaReport)> each, std::function<void()> again) {
    Impl::Request one;
    one.frame = FrameWriter(GM_DUMP).finish();
    one.each = std::move(each);
    one.again = std::move(again);
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<std::vector<SaReport>>> EngineClient::report_set(SetParameters parameters) {
    std::vector<SaReport> reports;
    Impl::Request one;
    one.frame = FrameWriter(GM_REPORT_SET).add(to_frame(parameters)).finish();
    one.each = [&reports](SaReport report) { reports.push_back(std::move(report)); };
    one.again = [&reports] { reports.clear(); };
    const auto told = co_await impl_->submit(std::move(one));
    if (!told) co_return std::unexpected(told.error());
    co_return reports;
}

Task<Result<void>> EngineClient::remove_sas(std::vector<SaId> ids) {
    for (std::size_t start = 0; start < ids.size(); start += kIdsPerFrame) {
        const auto part = std::span(ids).subspan(start, std::min(ids.size() - start, kIdsPerFrame));
        FrameWriter writer(GM_REMOVE_SAS, 0, static_cast<std::uint32_t>(part.size()));
        for (const auto& id : part) writer.add(to_frame(id));
        Impl::Request one;
        one.frame = writer.finish();
        auto removed = co_await impl_->submit(std::move(one));
        if (!removed) co_return removed;
    }
    co_return Result<void>{};
}

Task<Result<std::vector<ProbeFinding>>> EngineClient::probe(std::vector<AlgorithmPair> allowed) {
    std::vector<ProbeFinding> findings;
    if (allowed.empty()) co_return findings;
    FrameWriter writer(GM_PROBE, 0, static_cast<std::uint32_t>(allowed.size()));
    for (const auto pair : allowed) writer.add(to_frame(pair));
    Impl::Request one;
    one.frame = writer.finish();
    one.finding = [&findings](ProbeFinding finding) { findings.push_back(std::move(finding)); };
    one.again = [&findings] { findings.clear(); };
    const auto told = co_await impl_->submit(std::move(one));
    if (!told) co_return std::unexpected(told.error());
    co_return findings;
}

Task<Result<SealedKeys>> EngineClient::seal_set(SealOrder order) {
    gm_seal asked{};
    asked.epoch = order.epoch;
    asked.set = to_frame(order.parameters);
    std::ranges::copy(order.record, asked.record);
    std::optional<SealedKeys> keys;
    Impl::Request one;
    one.frame = FrameWriter(GM_SEAL_SET).add(asked).finish();
    one.sealed = [&keys](const gm_sealed& sealed) { std::memcpy(keys.emplace().data(), &sealed, sizeof sealed); };
    one.again = [&keys] { keys.reset(); };
    const auto told = co_await impl_->submit(std::move(one));
    if (!told) co_return std::unexpected(told.error());
    if (!keys) co_return failure(Reaction::broken, "the SA engine has sealed nothing");
    co_return *keys;
}

namespace {

gm_install_sealed to_frame(const SealedInstall& order, ReqId reqid) {
    gm_install_sealed asked{};
    asked.epoch = order.epoch;
    asked.set = to_frame(order.parameters);
    std::ranges::copy(order.record, asked.record);
    asked.reqid = reqid.value;
    asked.mark = order.mark.value;
    asked.lifetime =
        static_cast<std::uint32_t>(std::min<std::chrono::seconds::rep>(order.lifetime.count(), UINT32_MAX));
    if (order.parameters.mode == Mode::udp_enc_tun) asked.port_uenc = order.port_uenc.value;
    std::memcpy(&asked.sealed, order.keys.data(), sizeof asked.sealed);
    return asked;
}

}  // namespace

Task<Result<void>> EngineClient::install_sealed(SealedInstall order) {
    if (order.lifetime.count() <= 0) co_return failure(Reaction::internal, "a lifetime must be positive");
    Impl::Request one;
    one.frame = FrameWriter(GM_INSTALL_SEALED).add(to_frame(order, impl_->reqid)).finish();
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<void>> EngineClient::move_sealed(SealedInstall order) {
    if (order.lifetime.count() <= 0) co_return failure(Reaction::internal, "a lifetime must be positive");
    Impl::Request one;
    one.frame = FrameWriter(GM_MOVE_SEALED).add(to_frame(order, impl_->reqid)).finish();
    co_return co_await impl_->submit(std::move(one));
}

Task<Result<SipHashKey>> EngineClient::dialog_key() {
    std::optional<SipHashKey> key;
    Impl::Request one;
    one.frame = FrameWriter(GM_DIALOG_KEY).finish();
    one.key = [&key](const gm_key& told) { std::ranges::copy(told.octets, key.emplace().begin()); };
    one.again = [&key] { key.reset(); };
    const auto told = co_await impl_->submit(std::move(one));
    if (!told) co_return std::unexpected(told.error());
    if (!key) co_return failure(Reaction::broken, "the SA engine tells no key");
    co_return *key;
}

const KernelCounters& EngineClient::counters() const {
    impl_->sum = impl_->earlier;
    add(impl_->sum, impl_->now.kernel);
    return impl_->sum;
}

EngineStatus EngineClient::status() const {
    auto status = impl_->status;
    status.malformed = impl_->earlier_malformed + impl_->now.malformed;
    status.forbidden = impl_->earlier_forbidden + impl_->now.forbidden;
    status.flooded = impl_->earlier_flooded + impl_->now.flooded;
    return status;
}

}  // namespace gmgate::xfrm
