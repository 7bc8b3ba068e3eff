#include "xfrm/engine/server.h"

#include <algorithm>
#include <cerrno>

#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/post.hpp>

#include "base/secret.h"

namespace gmgate::xfrm {
namespace {

constexpr std::size_t kReportsPerFrame = (GM_FRAME_LIMIT - sizeof(gm_header)) / sizeof(gm_report);
constexpr std::size_t kFindingsPerFrame = (GM_FRAME_LIMIT - sizeof(gm_header)) / sizeof(gm_finding);
constexpr std::size_t kGuardsPerFrame = (GM_FRAME_LIMIT - sizeof(gm_header)) / sizeof(gm_guard);
/// Beyond this lists and requests wait for gmgated to read, and events are given up.
constexpr std::size_t kQueueLimit = 1024 * 1024;

std::unexpected<Error> malformed(std::string why) {
    return failure(Reaction::refused, "malformed request: " + std::move(why), EBADMSG);
}

}  // namespace

struct EngineServer::Impl : std::enable_shared_from_this<EngineServer::Impl> {
    Impl(asio::any_io_executor e, int descriptor, EngineRules r, Kernel& k, Handlers h)
        : executor(e), socket(e, descriptor), rules(std::move(r)), kernel(k), handlers(std::move(h)) {}

    bool is_abandoned();
    void take(std::span<std::uint8_t> frame);
    /// What a frame asks for, ready to run, or why it is refused. The next four read the rest of it, by kind.
    Result<Task<Result<void>>> order_of(std::span<std::uint8_t> frame);
    Result<Task<Result<void>>> set_order(FrameReader& reader);
    Result<Task<Result<void>>> removal_order(FrameReader& reader);
    Result<Task<Result<void>>> guards_order(FrameReader& reader);
    Result<Task<Result<void>>> probe_order(FrameReader& reader);
    Result<Task<Result<void>>> seal_order(FrameReader& reader);
    Result<Task<Result<void>>> sealed_order(FrameReader& reader);
    Result<Task<Result<void>>> dialog_key_order(FrameReader& reader);
    Task<Result<void>> tell_dialog_key(std::uint32_t sequence);
    Task<Result<void>> seal(gm_seal order, SetParameters parameters, std::uint32_t sequence);
    /// Nothing follows what has been read.
    static bool is_whole(FrameReader& reader) { return reader.is_complete() && reader.header().count == 0; }
    void run(std::uint32_t sequence, std::uint16_t kind, Task<Result<void>> order);
    void done(std::uint32_t sequence, const Result<void>& result);
    void refuse(std::uint32_t sequence, std::uint16_t kind, const Error& why);
    void report(const char* kind, const std::string& why);
    EngineCounters all_counters() const;

    Task<Result<void>> report_set(SetParameters parameters, std::uint32_t sequence);
    Task<Result<void>> dump(std::uint32_t sequence);
    Task<Result<void>> probe(std::vector<AlgorithmPair> pairs, std::uint32_t sequence);
    Task<Result<void>> report_guards(GuardRequest guards, std::uint32_t sequence);
    template <class Value>
    void send_list(gm_kind kind, const std::vector<Value>& values, std::size_t per_frame, std::uint32_t sequence);
    void send_reports(std::span<const gm_report> reports, std::uint32_t sequence);

    asio::any_io_executor executor;
    FrameSocket socket;
    EngineRules rules;
    Kernel& kernel;
    const Sealer* sealer = nullptr;  ///< null: no cluster
    KeyedKernel* keyed = nullptr;
    Handlers handlers;
    EngineCounters counters;
    std::size_t in_flight = 0;
    bool has_looked = false, is_gone = false;
    bool owes_loss = false;  ///< events were given up and gmgated does not know yet
    std::chrono::steady_clock::time_point report_second{};
    int reports_this_second = 0;
};

EngineServer::EngineServer(asio::any_io_executor executor, int descriptor, EngineRules rules, Kernel& kernel,
                           Handlers handlers)
    : impl_(std::make_shared<Impl>(std::move(executor), descriptor, std::move(rules), kernel, std::move(handlers))) {}

void EngineServer::seal_with(const Sealer& sealer, KeyedKernel& keyed) {
    impl_->sealer = &sealer;
    impl_->keyed = &keyed;
}

EngineServer::~EngineServer() { impl_->socket.close(); }

void EngineServer::start(std::string_view engine) {
    gm_ready ready{};
    ready.pid = static_cast<std::uint32_t>(::getpid());
    put_text(ready.engine, engine);
    impl_->socket.send(FrameWriter(GM_READY).add(ready).finish());
    impl_->socket.start([impl = impl_.get()](std::span<std::uint8_t> frame) { impl->take(frame); },
                        [impl = impl_.get()](std::string why) { impl->handlers.on_closed(std::move(why)); });
}

EngineCounters EngineServer::Impl::all_counters() const {
    auto all = counters;
    all.kernel = kernel.counters();
    return all;
}

EngineCounters EngineServer::counters() const { return impl_->all_counters(); }

void EngineServer::event(const KernelEvent& event) {
    auto& impl = *impl_;
    if (impl.socket.queued() > kQueueLimit) {
        ++impl.counters.events_lost;
        impl.owes_loss = true;
        return;
    }
    if (std::exchange(impl.owes_loss, false) && event.kind != KernelEvent::Kind::events_lost) {
        KernelEvent lost;
        lost.kind = KernelEvent::Kind::events_lost;
        impl.socket.send(FrameWriter(GM_EVENT).add(to_frame(lost)).finish());
    }
    ++impl.counters.events;
    impl.socket.send(FrameWriter(GM_EVENT).add(to_frame(event)).finish());
}

// Asked once for all frames that came together: one system call, not one for each.
bool EngineServer::Impl::is_abandoned() {
    if (is_gone || std::exchange(has_looked, true)) return is_gone;
    asio::post(executor, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->has_looked = false;
    });
    return is_gone = socket.is_abandoned();
}

void EngineServer::Impl::take(std::span<std::uint8_t> frame) {
    // Nobody reads the answers: no request is read either, until somebody does.
    if (socket.queued() > kQueueLimit) socket.drain_below(kQueueLimit / 2);
    if (is_abandoned()) return;  // its asker is gone; the socket says so in a moment
    const auto header = FrameReader(frame).header();
    if (in_flight >= GM_IN_FLIGHT_LIMIT) {
        ++counters.flooded;
        const Error flood{Reaction::retry, ENOBUFS, "the engine has too many requests under way"};
        report(gm_kind_name(header.kind), flood.text);
        return done(header.sequence, std::unexpected(flood));
    }
    auto order = order_of(frame);
    if (!order) return refuse(header.sequence, header.kind, order.error());
    run(header.sequence, header.kind, std::move(*order));
}

// Everything is checked here, before anything of it is done.
Result<Task<Result<void>>> EngineServer::Impl::order_of(std::span<std::uint8_t> frame) {
    FrameReader reader(frame);
    const auto& header = reader.header();
    if (frame.size() < sizeof(gm_header)) return malformed("no header");
    if (header.version != GM_PROTOCOL_VERSION) return malformed("another version of the protocol");
    if (header.flags != 0) return malformed("unknown flags");
    switch (header.kind) {
        case GM_INSTALL_SET:
        case GM_EXTEND_SET:
        case GM_REMOVE_SET:
        case GM_REPORT_SET:
        case GM_FOLLOW_NAT:
            return set_order(reader);
        case GM_REMOVE_SAS:
            return removal_order(reader);
        case GM_DUMP:
            if (!is_whole(reader)) return malformed("a list takes no arguments");
            return dump(header.sequence);
        case GM_INSTALL_GUARDS:
        case GM_REPORT_GUARDS:
            return guards_order(reader);
        case GM_PROBE:
            return probe_order(reader);
        case GM_SEAL_SET:
            return seal_order(reader);
        case GM_DIALOG_KEY:
            return dialog_key_order(reader);
        case GM_INSTALL_SEALED:
        case GM_MOVE_SEALED:
            return sealed_order(reader);
        case GM_CONFIGURE:
            return failure(Reaction::refused, "not allowed: the configuration is given once, by the guardian", EPERM);
        default:
            return malformed("unknown kind " + std::to_string(header.kind));
    }
}

Result<Task<Result<void>>> EngineServer::Impl::set_order(FrameReader& reader) {
    const auto& header = reader.header();
    if (header.kind == GM_INSTALL_SET) {
        auto install = reader.take<gm_install>();
        auto order = take_value_of(install);
        if (!order || !is_whole(reader)) return malformed("not a set of SAs");
        if (auto ok = rules.check_install(order->request, order->reqid); !ok) return std::unexpected(ok.error());
        return kernel.install_set(std::move(order->request));
    }
    if (header.kind == GM_EXTEND_SET) {
        const auto extend = reader.take<gm_extend>();
        const auto parameters = value_of(extend.set);
        if (!parameters || extend.lifetime == 0 || !is_whole(reader)) return malformed("not a set and a lifetime");
        if (auto ok = rules.check_set(*parameters); !ok) return std::unexpected(ok.error());
        return kernel.extend_set(*parameters, std::chrono::seconds(extend.lifetime));
    }
    if (header.kind == GM_FOLLOW_NAT) {
        const auto follow = reader.take<gm_follow>();
        const auto parameters = value_of(follow.set);
        if (!parameters || follow.port_uenc == 0 || follow.reserved != 0 || !is_whole(reader) ||
            parameters->mode != Mode::udp_enc_tun)
            return malformed("not a set behind NAT and a port");
        if (auto ok = rules.check_set(*parameters); !ok) return std::unexpected(ok.error());
        return kernel.follow_nat(*parameters, Port{follow.port_uenc});
    }
    const auto parameters = value_of(reader.take<gm_set>());
    if (!parameters || !is_whole(reader)) return malformed("not a set");
    if (auto ok = rules.check_set(*parameters); !ok) return std::unexpected(ok.error());
    if (header.kind == GM_REMOVE_SET) return kernel.remove_set(*parameters);
    return report_set(*parameters, header.sequence);
}

Result<Task<Result<void>>> EngineServer::Impl::removal_order(FrameReader& reader) {
    const auto& header = reader.header();
    if (header.count == 0 || !reader.is_list_of(sizeof(gm_sa_id))) return malformed("not a list of SAs");
    std::vector<SaId> ids;
    for (std::uint32_t i = 0; i < header.count; ++i) {
        const auto id = value_of(reader.take<gm_sa_id>());
        if (!id) return malformed("an SA's address or SPI");
        ids.push_back(*id);
    }
    return kernel.remove_sas(std::move(ids));
}

Result<Task<Result<void>>> EngineServer::Impl::guards_order(FrameReader& reader) {
    const auto& header = reader.header();
    auto told = value_of(reader.take<gm_guards>());
    if (!told || (header.count == 0 && !told->nat) || !reader.is_list_of(sizeof(std::uint16_t)))
        return malformed("not an address and ports");
    auto guards = std::move(*told);
    for (std::uint32_t i = 0; i < header.count; ++i) guards.ports.emplace_back(reader.take<std::uint16_t>());
    if (auto ok = rules.check_guards(guards); !ok) return std::unexpected(ok.error());
    if (header.kind == GM_REPORT_GUARDS) return report_guards(std::move(guards), header.sequence);
    return kernel.install_guards(std::move(guards));
}

Result<Task<Result<void>>> EngineServer::Impl::probe_order(FrameReader& reader) {
    const auto& header = reader.header();
    if (header.count == 0 || header.count > kDefaultPreference.size() || !reader.is_list_of(sizeof(gm_pair)))
        return malformed("not a list of algorithms");
    std::vector<AlgorithmPair> pairs;
    for (std::uint32_t i = 0; i < header.count; ++i) {
        const auto pair = value_of(reader.take<gm_pair>());
        if (!pair) return malformed("an unknown pair of algorithms");
        pairs.push_back(*pair);
    }
    return probe(std::move(pairs), header.sequence);
}

Result<Task<Result<void>>> EngineServer::Impl::seal_order(FrameReader& reader) {
    const auto order = reader.take<gm_seal>();
    const auto parameters = value_of(order.set);
    if (!parameters || order.epoch == 0 || !is_whole(reader)) return malformed("not a set and an epoch");
    if (auto ok = rules.check_set(*parameters); !ok) return std::unexpected(ok.error());
    if (!sealer) return failure(Reaction::refused, "not allowed: this engine has no cluster's secret", EPERM);
    return seal(order, *parameters, reader.header().sequence);
}

// The keys come from the kernel, are sealed and wiped: the asker gets what only another engine opens.
Task<Result<void>> EngineServer::Impl::seal(gm_seal order, SetParameters parameters, std::uint32_t sequence) {
    const auto told = co_await keyed->read_set(std::move(parameters));
    if (!told) co_return std::unexpected(told.error());
    RecordDigest record;
    std::ranges::copy(order.record, record.begin());
    const auto sealed = sealer->seal(order.set, record, order.epoch, *told);
    if (!sealed) co_return std::unexpected(sealed.error());
    socket.send(FrameWriter(GM_SEALED, sequence, 1).add(*sealed).finish());
    co_return Result<void>{};
}

// Opened and checked as any other set before the kernel hears of it.
Result<Task<Result<void>>> EngineServer::Impl::sealed_order(FrameReader& reader) {
    const auto order = reader.take<gm_install_sealed>();
    const auto parameters = value_of(order.set);
    if (!parameters || order.lifetime == 0 || order.epoch == 0 || order.reserved != 0 || order.reserved_too != 0 ||
        !is_whole(reader) || (order.port_uenc != 0) != (parameters->mode == Mode::udp_enc_tun))
        return malformed("not a sealed set");
    if (!sealer) return failure(Reaction::refused, "not allowed: this engine has no cluster's secret", EPERM);
    RecordDigest record;
    std::ranges::copy(order.record, record.begin());
    auto opened = sealer->open(order.set, record, order.sealed);
    if (!opened) return std::unexpected(opened.error());
    const auto start = Sealer::go_on(order.sealed, order.epoch);
    if (!start) return std::unexpected(start.error());
    if (!fits(parameters->algorithms, opened->keys)) return malformed("sealed keys of another length");
    SetRequest request{.parameters = *parameters,
                       .keys = std::move(opened->keys),
                       .mark = Mark{order.mark},
                       .lifetime = std::chrono::seconds(order.lifetime)};
    if (order.port_uenc != 0) request.port_uenc = Port{order.port_uenc};
    if (auto ok = rules.check_install(request, ReqId{order.reqid}); !ok) return std::unexpected(ok.error());
    if (reader.header().kind == GM_MOVE_SEALED) return keyed->move_set_to(request.parameters, *start);
    return keyed->install_set_at(std::move(request), *start);
}

Result<Task<Result<void>>> EngineServer::Impl::dialog_key_order(FrameReader& reader) {
    if (!is_whole(reader)) return malformed("more than nothing");
    if (!sealer) return failure(Reaction::refused, "not allowed: this engine has no cluster's secret", EPERM);
    return tell_dialog_key(reader.header().sequence);
}

Task<Result<void>> EngineServer::Impl::tell_dialog_key(std::uint32_t sequence) {
    gm_key told{};
    std::ranges::copy(sealer->dialog_key(), told.octets);
    socket.send(FrameWriter(GM_KEY, sequence, 1).add(told).finish());
    co_return Result<void>{};
}

void EngineServer::Impl::run(std::uint32_t sequence, std::uint16_t kind, Task<Result<void>> order) {
    ++in_flight;
    asio::co_spawn(
        executor, std::move(order),
        [self = shared_from_this(), sequence, kind](const std::exception_ptr& exception, Result<void> result) {
            --self->in_flight;
            if (exception) result = failure(Reaction::internal, "the engine failed inside");
            if (!result && result.error().reaction == Reaction::refused &&
                result.error().code == EPERM) {  // an SA of somebody else
                ++self->counters.forbidden;
                self->report(gm_kind_name(kind), result.error().text);
            }
            self->done(sequence, result);
        });
}

void EngineServer::Impl::refuse(std::uint32_t sequence, std::uint16_t kind, const Error& why) {
    ++(why.code == EBADMSG ? counters.malformed : counters.forbidden);
    report(gm_kind_name(kind), why.text);
    done(sequence, std::unexpected(why));
}

void EngineServer::Impl::report(const char* kind, const std::string& why) {
    const auto now = std::chrono::steady_clock::now();
    if (now - report_second >= std::chrono::seconds{1}) {
        report_second = now;
        reports_this_second = 0;
    }
    if (++reports_this_second <= kReportsPerSecond) handlers.on_refused(kind, why);
}

void EngineServer::Impl::done(std::uint32_t sequence, const Result<void>& result) {
    socket.send(FrameWriter(GM_DONE, sequence).add(to_frame(result, all_counters())).finish());
}

void EngineServer::Impl::send_reports(std::span<const gm_report> reports, std::uint32_t sequence) {
    FrameWriter writer(GM_REPORTS, sequence, static_cast<std::uint32_t>(reports.size()));
    for (const auto& report : reports) writer.add(report);
    socket.send(writer.finish());
    if (socket.queued() > kQueueLimit) socket.drain_below(kQueueLimit / 2);
}

Task<Result<void>> EngineServer::Impl::report_set(SetParameters parameters, std::uint32_t sequence) {
    const auto reports = co_await kernel.report_set(std::move(parameters));
    if (!reports) co_return std::unexpected(reports.error());
    std::vector<gm_report> frames;
    for (const auto& one : *reports) frames.push_back(to_frame(one));
    if (!frames.empty()) send_reports(frames, sequence);
    co_return Result<void>{};
}

Task<Result<void>> EngineServer::Impl::dump(std::uint32_t sequence) {
    std::vector<gm_report> waiting;
    waiting.reserve(kReportsPerFrame);
    std::function<void(SaReport)> each = [&](const SaReport& one) {
        waiting.push_back(to_frame(one));
        if (waiting.size() < kReportsPerFrame) return;
        send_reports(waiting, sequence);
        waiting.clear();
    };
    std::function<void()> again = [&] {
        waiting.clear();
        socket.send(FrameWriter(GM_AGAIN, sequence).finish());
    };
    auto told = co_await kernel.dump_each(std::move(each), std::move(again));
    if (told && !waiting.empty()) send_reports(waiting, sequence);
    co_return told;
}

template <class Value>
void EngineServer::Impl::send_list(gm_kind kind, const std::vector<Value>& values, std::size_t per_frame,
                                   std::uint32_t sequence) {
    for (std::size_t start = 0; start < values.size(); start += per_frame) {
        const auto part = std::span(values).subspan(start, std::min(values.size() - start, per_frame));
        FrameWriter writer(kind, sequence, static_cast<std::uint32_t>(part.size()));
        for (const auto& value : part) writer.add(to_frame(value));
        socket.send(writer.finish());
    }
}

Task<Result<void>> EngineServer::Impl::report_guards(GuardRequest guards, std::uint32_t sequence) {
    const auto standing = co_await kernel.report_guards(std::move(guards));
    if (!standing) co_return std::unexpected(standing.error());
    send_list(GM_GUARDS, *standing, kGuardsPerFrame, sequence);
    co_return Result<void>{};
}

Task<Result<void>> EngineServer::Impl::probe(std::vector<AlgorithmPair> pairs, std::uint32_t sequence) {
    const auto findings = co_await kernel.probe(std::move(pairs));
    if (!findings) co_return std::unexpected(findings.error());
    send_list(GM_FINDINGS, *findings, kFindingsPerFrame, sequence);
    co_return Result<void>{};
}

}  // namespace gmgate::xfrm
