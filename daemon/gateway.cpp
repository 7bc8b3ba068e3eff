#include "daemon/gateway.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/cluster/cluster.h"
#include "daemon/cluster/held_sockets.h"
#include "daemon/operate/metrics.h"
#include "daemon/preflight/finding.h"
#include "daemon/registrations/adopt.h"
#include "daemon/restart/dialog_key.h"
#include "sip/transport/stream.h"
#include "sip/transport/way_back.h"

namespace gmgate::daemon {
namespace {

sip::TransportLimits transport_limits(const Config& config) {
    const Limits& limits = config.limits;
    sip::TransportLimits result;
    result.stranger_lifetime = config.timers.stranger_connection;
    result.unbound_idle = observation_of(config.settings).unregistered_idle;
    result.connections = limits.connections;
    result.connections_per_address = limits.connections_per_address;
    return result;
}

// Strangers have half of the table: whatever they send and however slow the core is, registered phones have the rest.
sip::TransactionLimits transaction_limits(const Limits& limits) {
    sip::TransactionLimits result;
    result.server_transactions = result.client_transactions = limits.transactions;
    result.urgent_reserve = limits.transactions * limits.emergency_reserve / 100;
    result.strangers = std::max<std::size_t>(1, limits.transactions / 2);
    result.waiting_per_source = std::min(limits.connections_per_address, result.strangers);
    return result;
}

// Not a REGISTER, but what an operator asks for when the phone is gone.
DecisionRecord moved_record(const Impi& impi, const SaSet& set, const Endpoint& now,
                            std::chrono::system_clock::time_point time) {
    DecisionRecord record;
    record.time = time;
    record.impi = impi;
    record.ue = now.to_string();
    record.over = fmt::format("{} set {}", to_string(set.state), set.number.value);
    record.why = fmt::format("its NAT was {} and is {} now: the set of SAs ends", set.parameters.ue.to_string(),
                             now.address.to_string());
    record.checks.push_back({"nat-moved", false, record.why});
    return record;
}

constexpr std::size_t kKnownAddresses = 65536;
// Two nodes of a cluster never choose the same SPI.
std::pair<Spi, Spi> own_spis(const Config& config, const ClusterConfig* cluster) {
    return cluster ? cluster->spi_range(config.xfrm) : std::pair{config.xfrm.spi_start, config.xfrm.spi_end};
}

// For the last rows, when the process ends.
constexpr std::chrono::seconds kStorePatience{5};

}  // namespace

Gateway::Gateway(asio::io_context& loop, const Config& config, xfrm::Kernel& kernel, const Clock& clock,
                 const ClusterConfig* cluster)
    : loop_(loop),
      config_(config),
      kernel_(kernel),
      clock_(clock),
      trace_(config.limits.trace_records_per_ue, config.limits.traced_ues),
      loop_watch_(clock, config.limits.loop_lag),
      accesses_(config),
      known_addresses_(std::max(kKnownAddresses, config.limits.registrations)),
      budget_(config.limits.authentications, clock),
      spis_(own_spis(config, cluster).first, own_spis(config, cluster).second),
      transports_(loop.get_executor(), transport_limits(config)),
      transactions_(
          loop.get_executor(), transports_, transaction_limits(config.limits),
          [this](const sip::Flow& flow) { return accesses_.find(flow.local) ? sip::kUeTimers : sip::kCoreTimers; }),
      core_(config.core, transports_, transactions_),
      core_door_(config.core, core_, counters_, clock),
      store_(loop.get_executor(), config.store, counters_),
      keeper_(loop.get_executor(), table_, store_),
      sets_(config, table_, kernel, spis_, transports_, counters_, clock),
      expiry_(config, table_, sets_, transports_, counters_, clock),
      kernel_watch_(loop.get_executor(), accesses_, table_, sets_, kernel, counters_),
      tls_agreements_(config.limits.challenges, clock),
      register_flow_({config, accesses_, table_, sets_, expiry_, tls_agreements_, transports_, core_, trace_, counters_,
                      clock, &keeper_, &operating_, &budget_, &known_addresses_}),
      router_(loop.get_executor(), config, table_, core_, transports_, transactions_, counters_),
      reg_events_(loop.get_executor(), config, table_, expiry_, core_, counters_, clock),
      tls_engine_(loop.get_executor(), config),
      tls_connector_(loop.get_executor(), tls_engine_, transports_),
      tls_(loop.get_executor(), config, tls_engine_, transports_, counters_),
      encap_(accesses_.encapsulation_addresses()),
      handover_(loop.get_executor(),
                {config, accesses_, table_, store_, keeper_, transports_, tls_, counters_, encap_}),
      tap_(loop.get_executor(), clock, tap_settings(config), [this](Spi spi) { return spis_.holds(spi); }),
      messages_(clock, {}),
      recorder_(clock, observation_of(config.settings).recorder,
                [this](bool outward, const sip::Flow& flow) { return context_of(outward, flow); }),
      operations_({loop.get_executor(), config, accesses_, table_, sets_, kernel_watch_, kernel, transports_,
                   transactions_, trace_, counters_, clock, operating_, tap_, messages_,
                   [this] { return tls_engine_.counters(); }, core_, recorder_}) {
    core_.use_tls(tls_connector_);
    transactions_.set_screen(
        [this](const sip::Message& message, const sip::Flow& flow) { return screen(message, flow); });
    transactions_.set_doors(
        [this](const sip::Flow& flow, sip::Direction direction) { return door_of(flow, direction); });
    transactions_.on_wrong_door([](const sip::Message& response, const sip::Flow& came, const sip::Flow& sent) {
        log::warning("response-wrong-door", {{"status", response.status()},
                                             {"method", response.method_name()},
                                             {"call-id", response.value(sip::HeaderId::call_id)},
                                             {"from", came.remote.to_string()},
                                             {"to", came.local.to_string()},
                                             {"request-went-to", sent.remote.to_string()}});
    });
    transports_.set_gate([this](const sip::Flow& flow) { return may_leave(flow); });
    transports_.set_message_limit([this](const sip::Flow& flow) { return message_limit(flow); });
    transports_.set_standing([this](const sip::Flow& flow) { return standing_of(flow); });
    tls_.set_known([this](const Address& address) {
        return known_addresses_.contains(address) || core_.is_core_address(address);
    });
    tls_.set_core_door(
        [this](const Endpoint& remote, const Endpoint& local) { return core_door_.admits(remote, local); });
    table_.on_change([this](const ContactKey& key) { remember_address(key); });
    transactions_.set_urgent([this](const sip::Message& message, const sip::Flow&) { return is_urgent(message); });
    transactions_.set_shed(
        [this](const sip::Message& message, const sip::Flow& flow) { return must_shed(message, flow); });
    transports_.on_traffic([this](bool outward, const sip::Flow& flow, std::string_view bytes) {
        recorder_.see(outward, flow, bytes);
        if (messages_.is_on()) see(outward, flow, bytes);
    });
    transports_.set_reply_route([this](const sip::Flow& flow) { return way_back(flow); });
    transactions_.set_finish(
        [this](std::string response, const sip::Flow& way) { return tell_overload(std::move(response), way); });
    transports_.on_closed([this](const sip::Flow& flow) { connection_ended(flow); });
    transactions_.on_request(
        [this](std::shared_ptr<sip::ServerTransaction> transaction) { dispatch(std::move(transaction)); });
    transactions_.on_stray(
        [this](sip::OwnedMessage message, sip::Flow flow) { router_.stray(std::move(message), flow); });
}

// ------------------------------------------------------------------------------------------
// start

Task<Result<void>> Gateway::start(bool take_over, std::function<void()> left) {
    if (auto ok = co_await check_kernel(); !ok) co_return ok;
    if (auto ok = co_await install_guards(); !ok) co_return ok;
    if (auto ok = handover_.receive(take_over); !ok) co_return ok;
    if (auto ok = co_await stand_by(take_over); !ok) co_return ok;
    if (auto ok = co_await take_up(); !ok) co_return ok;
    spawn_lasting(
        loop_.get_executor(), [this] { return expiry_.run(); }, "expiry");
    spawn_lasting(
        loop_.get_executor(), [this] { return tls_engine_.certificates().watch(); }, "certificates");
    spawn(loop_.get_executor(), core_.watch_next_hops(), "ping");
    spawn(loop_.get_executor(), loop_watch_.run(), "loop-watch");
    if (config_.core.reg_event) {
        register_flow_.on_registered(
            [this](const Registration& registration) { reg_events_.registered(registration); });
        table_.for_each([this](Registration& registration) {
            reg_events_.registered(registration);
        });  // adopted from an earlier run
        spawn(loop_.get_executor(), reg_events_.run(), "reg-event");
    }
    tell_what_phones_get();
    kernel_watch_.on_nat_moved([this](const Impi& impi, const SaSet& set, const Endpoint& now) {
        trace_.add(moved_record(impi, set, now, clock_.wall()));
    });
    sets_.on_unanswered([this](const SaSet& set, std::vector<xfrm::SaReport> sas) {
        if (cluster_) cluster_->challenge_ended(set.number);
        operations_.unanswered(set.number, set.parameters);
        trace_.add(UnansweredSet{set.number, clock_.wall(), set.parameters, std::move(sas)});
    });
    if (config_.packet_tap)
        if (const auto ok = tap_.open(); !ok)
            log::warning("packet-tap-off", {{"why", ok.error().text},
                                            {"now", "gmctl why cannot tell who sends to unknown SPIs or in clear"}});
    if (!cluster_)
        if (auto ok = operations_.open(take_over); !ok) co_return ok;
    if (!cluster_)
        if (auto ok = open_monitoring(); !ok) co_return ok;
    if (auto ok = open_hep(); !ok) co_return ok;
    if (auto ok = handover_.serve(std::move(left)); !ok) co_return ok;
    if (cluster_) cluster_->serve();
    if (comes_after_another_) kernel_watch_.look();
    log::notice("gateway-ready", {{"version", GMGATE_VERSION},
                                  {"core", config_.core.next_hops.front().to_string()},
                                  {"accesses", accesses_.all().size()}});
    co_return Result<void>{};
}

void Gateway::join(const ClusterConfig& cluster, xfrm::Sealing& sealing, std::function<void()> on_lost) {
    cluster_ = std::make_shared<Cluster>(ClusterParts{
        loop_.get_executor(), config_, cluster, table_, sealing, kernel_, clock_, [this] { return clear_kernel(); },
        [this](bool is_away) { hold_sockets(is_away); }, [lost = std::move(on_lost)](const std::string&) { lost(); }});
    keeper_.also([this](ContactKey key) { return cluster_->save(std::move(key)); });
    keeper_.also_challenges([this](ChallengeKey key) { return cluster_->save_challenge(std::move(key)); });
    operations_.add_cluster([this] { return cluster_->status(); });
}

// One node of a cluster serves; the others wait here, with their guards and their control socket.
Task<Result<void>> Gateway::stand_by(bool take_over) {
    if (!cluster_) {
        transports_.prepare(std::move(prepared_udp_));
        co_return Result<void>{};
    }
    if (auto ok = operations_.open(take_over); !ok) co_return ok;
    if (auto ok = open_monitoring(); !ok) co_return ok;
    if (!take_over) handover_.stand_by();
    const auto source = co_await cluster_->await_ownership();
    if (!source) co_return std::unexpected(source.error());
    comes_after_another_ = *source == Cluster::Source::other_node;
    take_held_sockets();
    co_return Result<void>{};
}

// Of this node's own earlier time: another node has served since.
Task<Result<void>> Gateway::clear_kernel() {
    Adoption nothing({config_, accesses_, table_, sets_, expiry_, spis_, kernel_, counters_, clock_});
    co_return co_await nothing.match_kernel();
}

void Gateway::hold_sockets(bool accepts) {
    if (!held_) {
        std::vector<HeldSockets::Wish> wishes;
        for (const auto& local : accesses_.protected_ports()) wishes.push_back({.local = local});
        if (config_.core.transport != CoreTransport::tls)
            for (const auto& local : config_.core.listen) wishes.push_back({.local = local});
        for (const auto& interface : config_.sip_interfaces)
            for (const auto& port : interface.sip_ports)
                wishes.push_back({.local = {port.address, port.port}, .udp = port.udp, .tcp = port.tcp});
        held_ = std::make_shared<HeldSockets>(std::move(wishes), std::exchange(prepared_udp_, {}));
    }
    held_->hold(accepts);
    if (auto ok = encap_.open(true); !ok)
        log::notice("cluster-sockets-not-held", {{"sockets", 1}, {"why", ok.error().text}});
}

void Gateway::take_held_sockets() {
    if (held_) {
        for (auto& socket : held_->take(cluster_->has_waited())) transports_.inherit(std::move(socket));
        prepared_udp_ = held_->take_unused();
        held_.reset();
    }
    transports_.prepare(std::exchange(prepared_udp_, {}));
}

void Gateway::kernel_event(const xfrm::KernelEvent& event) {
    if (cluster_) cluster_->heard(event);
    kernel_watch_.event(event);
}

void Gateway::use(Prepared prepared) {
    prepared_udp_ = std::move(prepared.udp);
    if (prepared.tap) tap_.use(std::move(*prepared.tap));
}

Task<Result<void>> Gateway::check_kernel() {
    const auto pairs = all_allowed_pairs(config_);
    if (pairs.empty()) co_return Result<void>{};
    const auto findings = co_await kernel_.probe(pairs);
    if (!findings) co_return std::unexpected(findings.error());
    const auto missing = kernel_lacks(*findings);
    if (missing.empty()) co_return Result<void>{};
    log::error("kernel-lacks", {{"why", missing}});
    co_return failure(Reaction::reject, missing);  // no later start succeeds before somebody has done something
}

// A registration with such an algorithm is refused with the kernel's reason; this says it beforehand, and loads
// modules.
Task<void> Gateway::check_kernel_again() { static_cast<void>(co_await check_kernel()); }

void Gateway::configuration_changed() {
    // An address that is no next hop any more stays known: answers and requests of its dialogs are still on their way.
    core_.note_next_hops();
    spawn(loop_.get_executor(), check_kernel_again(), "check-kernel");
}

// B-13: before a socket opens, the protected ports accept and send nothing without ESP; after a crash they still do.
Task<Result<void>> Gateway::install_guards() {
    auto requests = accesses_.guard_requests();
    for (auto& request : requests) {
        const auto gateway = request.gateway;
        if (auto ok = co_await kernel_.install_guards(std::move(request)); !ok) {
            ok.error().text = fmt::format("guard policies for {}: {}", gateway.to_string(), ok.error().text);
            co_return ok;
        }
    }
    co_return Result<void>{};
}

// What the process before left: rows and SAs that belong together live on, everything else is removed before a socket
// opens.
Task<Result<void>> Gateway::take_up() {
    const auto begun = clock_.now();
    if (auto ok = store_.open(boot_id_of_this_machine(), handover_.take_lock()); !ok) co_return ok;
    keep_dialogs();
    if (cluster_) co_await share_dialogs();
    Adoption adoption({config_, accesses_, table_, sets_, expiry_, spis_, kernel_, counters_, clock_});
    if (auto ok = co_await collect(adoption); !ok) co_return ok;
    // What was held ready is known to be in the kernel; whether that is so still is looked at once phones are served.
    auto matched = comes_after_another_ ? co_await adoption.believe() : co_await adoption.match_kernel();
    if (!matched) co_return matched;
    if (auto ok = open_sockets(); !ok) co_return ok;
    handover_.resume();
    adoption.commit([this](sip::ConnectionId connection) { return handover_.flow_of(connection); });
    handover_.settle();
    take_challenges();
    for (const auto& key : adoption.dropped()) store_.erase(key);
    if (comes_after_another_) spawn(loop_.get_executor(), keeper_.save_all(), "save-all");
    store_.on_gap([this] { spawn(loop_.get_executor(), keeper_.save_all(), "save-all"); });
    const auto& summary = adoption.summary();
    if (summary.rows != 0 || summary.sas_removed != 0)
        log::notice(
            "registrations-adopted",
            {{"registrations", summary.registrations},
             {"sets", summary.sets},
             {"not-adopted", summary.dropped},
             {"stale-sas-removed", summary.sas_removed},
             {"milliseconds", std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - begun).count()}});
    if (summary.foreign != 0)
        log::warning(
            "foreign-sas",
            {{"count", summary.foreign},
             {"reqid", config_.xfrm.reqid},
             {"why",
              "they have our reqid but no mark of ours: someone else's, left alone; give [xfrm] another reqid"}});
    co_return Result<void>{};
}

// The rows that are to live on: those of this node's own store, or what the node before left in the shared one. Then
// what this node has of an earlier time counts no more, in its store as in its kernel.
Task<Result<void>> Gateway::collect(Adoption& adoption) {
    if (!comes_after_another_) {
        co_return store_.load([&](StoredRegistration row) { adoption.add(std::move(row)); });
    }
    std::set<ContactKey> earlier;
    if (auto ok = store_.load([&](const StoredRegistration& row) { earlier.insert(row.key); }); !ok) co_return ok;
    auto records = co_await cluster_->take_records();
    taken_challenges_ = std::move(records.challenges);
    for (auto& row : records.registrations) {
        earlier.erase(row.key);
        adoption.add(std::move(row));
    }
    for (const auto& key : earlier) store_.erase(key);
    co_return Result<void>{};
}

// A phone that was challenged by the node before answers here, over the same SAs.
void Gateway::take_challenges() {
    for (auto& [row, beside] : std::exchange(taken_challenges_, {})) {
        auto set = to_set(row.sets.front());
        table_.continue_numbers_after(row.sets.front().number);
        if (!set || row.expires <= clock_.now() || !spis_.adopt((*set)->own_spis())) continue;
        auto challenge = std::make_unique<Challenge>();
        challenge->impi = row.key.impi;
        challenge->ue = (*set)->parameters.ue;
        challenge->contact = row.key;
        challenge->nonce = beside.nonce;
        challenge->token = row.token;
        challenge->came_over = beside.came_over;
        challenge->set = std::move(*set);
        expiry_.watch(challenge->set->number, challenge->set->expires);
        table_.put_challenge(std::move(challenge));
    }
}

// With the registrations goes the key by which their dialogs are known; without a file both end with the process.
void Gateway::keep_dialogs() {
    if (!config_.store.is_kept) return;
    bool is_new = false;
    const std::string file = config_.store.file + ".dialog-key";
    const auto key = kept_dialog_key(file, is_new);
    if (!key)
        return log::warning("dialog-key-not-kept",
                            {{"reason", key.error().text},
                             {"why", "calls that stand at the next restart will be treated as unknown ones"}});
    if (is_new) log::info("dialog-key-made", {{"file", file}});
    router_.use_dialog_key(*key);
}

// The calls that the node before carried are known here.
Task<void> Gateway::share_dialogs() {
    const auto key = co_await cluster_->dialog_key();
    if (key) router_.use_dialog_key(*key);
    else
        log::warning("dialog-key-not-kept",
                     {{"reason", key.error().text},
                      {"why", "calls that stand when another node takes over will be treated as unknown ones"}});
}

Result<void> Gateway::open_sockets() {
    if (auto ok = open_core_side(); !ok) return ok;
    for (const auto& local : accesses_.protected_ports())
        if (auto ok = transports_.listen(local, {.udp = true, .tcp = true, .report_mark = true}); !ok) return ok;
    if (auto ok = encap_.open(); !ok) return ok;
    for (const auto& interface : config_.sip_interfaces)
        for (const auto& port : interface.sip_ports)
            if (port.udp || port.tcp)
                if (auto ok = transports_.listen({port.address, port.port},
                                                 {.udp = port.udp, .tcp = port.tcp, .gives_way = true});
                    !ok)
                    return ok;
    transports_.prepare({});
    return tls_.open();
}

// With transport = "tls" nothing goes to the core or comes from it in clear; the listener is one of tls_.
Result<void> Gateway::open_core_side() {
    const auto& core = config_.core;
    if (core.transport != CoreTransport::tls) {
        for (const Endpoint& local : core.listen) {
            sip::ListenOptions options;
            options.admits = [this, local](const Endpoint& remote) { return core_door_.admits(remote, local); };
            if (auto ok = transports_.listen(local, std::move(options)); !ok) return ok;
        }
        return {};
    }
    const auto& profile = *config_.tls_profile(core.tls_profile);
    return tls_connector_.open({core.tls_ca, core.tls_names(), certificate_files(profile), profile.expiry_warning});
}

// What phones will get from each interface, said once at start (issue: a feature that is off must not surprise).
void Gateway::tell_what_phones_get() const {
    if (const auto words = tls_engine_.kernel_words(); !words.empty())
        log::notice("tls-sessions", {{"carried", words}});
    for (const auto& access : accesses_.all()) {
        const auto policy = Policy::of(*access.interface, access.profile);
        std::string gets;
        if (policy.ipsec) gets = "ipsec-3gpp";
        if (policy.tls) gets += gets.empty() ? "tls" : (policy.tls_first ? " after tls" : ", then tls");
        if (gets.empty()) gets = "no service in clear (403), but emergency; TLS ports serve without an agreement";
        log::notice("interface", {{"realm", access.interface->realm_id},
                                  {"address", access.address.to_string()},
                                  {"sec-agree", access.interface->sec_agree_feature ? "enabled" : "disabled"},
                                  {"phones-get", gets}});
        for (const auto pair : policy.allowed_pairs())
            if (is_deprecated(pair)) {
                log::notice(
                    "deprecated-algorithms-allowed",
                    {{"realm", access.interface->realm_id},
                     {"why",
                      "last in the order, for phones that offer nothing else; refuse-deprecated = true refuses them"}});
                break;
            }
    }
}

std::vector<Address> Gateway::access_addresses() const {
    std::set<Address> addresses;
    for (const auto& access : accesses_.all()) addresses.insert(access.address);
    return {addresses.begin(), addresses.end()};
}

// Whose message it is and how it is protected, for an operator who looks at that user.
MessageTrace::Context Gateway::context_of(bool outward, const sip::Flow& flow) {
    MessageTrace::Context context;
    context.core_side = !accesses_.find(flow.local);
    context.protection = "clear";
    auto by_ends = flow;  // what we send over UDP carries no mark: as for a stream, the two ends tell whose SA it takes
    if (outward && flow.transport == sip::Transport::udp) by_ends.transport = sip::Transport::tcp;
    const auto owner = table_.owner_of(by_ends);
    if (owner.set) context.protection = fmt::format("ESP set {}", owner.set->number.value);
    else if (flow.transport == sip::Transport::tls)
        context.protection = fmt::format("TLS connection {}", flow.connection.value);
    if (owner.challenge) context.owner = owner.challenge->impi;
    else if (owner.registration) context.owner = owner.registration->key.impi;
    return context;
}

void Gateway::see(bool outward, const sip::Flow& flow, std::string_view bytes) {
    messages_.see(outward, flow, bytes, context_of(outward, flow));
}

namespace {

Task<Result<std::unique_ptr<sip::ByteStream>>> connect_hep(asio::any_io_executor executor, Endpoint collector,
                                                           TlsEngine* engine,
                                                           std::shared_ptr<const ktls::Context> trusted) {
    constexpr std::chrono::milliseconds kPatience{5000};
    const Endpoint local{Address::any(collector.address.family()), Port{0}};
    auto stream = co_await sip::TcpStream::connect(executor, local, collector, kPatience, 2 * kPatience);
    if (!stream) co_return std::unexpected(stream.error());
    if (!trusted) co_return std::unique_ptr<sip::ByteStream>(std::move(*stream));
    auto handshaker = engine->handshaker();
    if (!handshaker) co_return std::unexpected(handshaker.error());
    auto handshake = (*handshaker)->connect(ktls::OwnedFd((*stream)->release().release()), *trusted, kPatience);
    auto established = co_await std::move(handshake);
    if (!established) co_return std::unexpected(established.error());
    co_return as_byte_stream(std::move(established->connection));
}

}  // namespace

// The certificates are read here, so that a mistake ends the start and not the export.
Result<HepSender::Connect> Gateway::hep_connect(const HepSettings& settings) {
    std::shared_ptr<const ktls::Context> trusted;
    if (settings.transport == HepSettings::Transport::tls) {
        ktls::ClientOptions options;
        options.ca_file = settings.tls_ca;
        options.server_name = settings.tls_name;
        auto context = ktls::Context::client(std::move(options));
        if (!context) return std::unexpected(context.error());
        trusted = tls_engine_.certificates().add("hep", std::move(*context), std::chrono::days{30});
    }
    return [executor = asio::any_io_executor(loop_.get_executor()), collector = config_.hep_collector,
            engine = &tls_engine_, trusted] { return connect_hep(executor, collector, engine, trusted); };
}

Result<void> Gateway::open_hep() {
    if (config_.hep_collector.port.value == 0) return {};
    const auto settings = observation_of(config_.settings).hep;
    HepLabels labels{config_.hep_id};
    if (!settings.auth_key_file.empty()) {
        auto key = read_auth_key(settings.auth_key_file);
        if (!key) return std::unexpected(key.error());
        labels.auth_key = std::move(*key);
    }
    if (settings.transport == HepSettings::Transport::udp) {
        auto sender = HepSender::open(config_.hep_collector, std::move(labels));
        if (!sender) return std::unexpected(sender.error());
        hep_.emplace(std::move(*sender));
    } else {
        auto connect = hep_connect(settings);
        if (!connect) return std::unexpected(connect.error());
        hep_.emplace(HepSender::over(loop_.get_executor(), std::move(labels), std::move(*connect)));
    }
    messages_.set_sink([this](const TracedMessage& message) { hep_->send(message); });
    return {};
}

// /healthz: the loop answers. /readyz: phones may be sent here.
Result<void> Gateway::open_monitoring() {
    if (config_.metrics_listen.port.value == 0) return {};
    monitoring_ = std::make_unique<HttpResponder>(loop_.get_executor(), HttpSettings{config_.metrics_listen});
    monitoring_->add("/metrics", [this]() -> Task<HttpAnswer> {
        MetricSources sources{config_,
                              table_,
                              counters_,
                              kernel_,
                              transports_,
                              transactions_,
                              tap_,
                              [this] { return tls_engine_.counters(); },
                              [this] { return kernel_watch_.guards_stand(); },
                              [this] { return operating_.draining; },
                              &core_,
                              &operations_.statistics(),
                              &loop_watch_.lateness(),
                              &operations_.reloaded(),
                              &tls_engine_.certificates(),
                              {}};
        if (!accesses_.encapsulation_addresses().empty())
            sources.stray_encapsulated = [this] { return encap_.stray_datagrams(); };
        if (hep_) sources.hep = [this] { return hep_->numbers(); };
        sources.recorder = [this] { return recorder_.numbers(); };
        if (cluster_) sources.cluster = [this] { return cluster_->numbers(); };
        auto text = co_await metrics_text(std::move(sources));
        co_return HttpAnswer{200, "text/plain; version=0.0.4; charset=utf-8", std::move(text)};
    });
    monitoring_->add("/healthz", []() -> Task<HttpAnswer> { co_return HttpAnswer{.body = "ok\n"}; });
    monitoring_->add("/readyz", [this]() -> Task<HttpAnswer> {
        if (operating_.draining) co_return HttpAnswer{.status = 503, .body = "draining\n"};
        if (cluster_ && !cluster_->numbers().serves) co_return HttpAnswer{.status = 503, .body = "standing by\n"};
        if (!kernel_watch_.guards_stand()) co_return HttpAnswer{.status = 503, .body = "a guard policy is missing\n"};
        co_return HttpAnswer{.body = "ready\n"};
    });
    return monitoring_->open();
}

Result<void> Gateway::reload_certificates() {
    auto done = tls_engine_.certificates().reload();
    if (auto opened = tls_.open_missing(); !opened) {
        if (!done) opened.error().text = fmt::format("{}; {}", done.error().text, opened.error().text);
        done = std::move(opened);
    }
    if (tls_engine_.certificates().empty() && done) return {};
    if (done) log::notice("certificates-reloaded", {{"why", "for new connections; those that stand go on"}});
    else
        log::error("certificates-not-reloaded",
                   {{"why", done.error().text}, {"now", "what is named here stays as it was"}});
    return done;
}

void Gateway::stop() {
    operations_.close();
    if (monitoring_) monitoring_->close();
    tap_.close();
    tls_engine_.certificates().stop();
    tls_.close();
    if (!handover_.leave()) transports_.shutdown();
    keeper_.write_now();
    if (!store_.flush(kStorePatience))
        log::warning("store-not-flushed", {{"queued", store_.queued()},
                                           {"why", "the disk does not take the rows; these registrations are lost"}});
    store_.close();
}

// --------------------------------------------------------------------------------------------------------------- every
// message

// On a protected port the kernel says over which set a message came; a temporary set carries REGISTER only (C-45).
bool Gateway::screen(const sip::Message& message, const sip::Flow& flow) {
    if (!accesses_.is_protected(flow.local)) return true;
    const auto owner = table_.owner_of(flow);
    const bool is_register = message.is_request() && message.method() == sip::Method::register_;
    if (owner.registration && owner.registration->ended && !is_register)
        return false;  // only retransmissions of the last REGISTER
    const bool allowed = owner.set && (!owner.challenge || is_register);
    if (!allowed) {
        counters_.add(Counter::wrong_sa);
        const auto* set = owner.set ? nullptr : table_.find_set(SetNumber{flow.mark.value}).set;
        if (set && set->parameters.inner) counters_.add(Counter::nat_other_inner);
        log::debug("wrong-sa",
                   {{"from", flow.remote.to_string()}, {"to", flow.local.to_string()}, {"set", flow.mark.value}});
        return false;
    }
    // A REGISTER counts in the register flow, where its retransmissions do not arrive.
    if (owner.registration && !is_register) expiry_.used(*owner.registration, owner.set->number);
    if (owner.registration && cluster_) cluster_->used(owner.registration->key);
    return true;
}

// TS 33.203 §7.1: whoever holds the SAs or the TLS connection, over whichever of its flows; the core, by address;
// else what a socket can tell.
sip::Door Gateway::door_of(const sip::Flow& flow, sip::Direction direction) {
    if (accesses_.find(flow.local) == nullptr) return CoreLink::door_of(flow);
    const auto phone = table_.phone_of(flow, direction);
    return phone.value != 0 ? sip::Door{.owner = phone} : sip::door_of_ends(flow);
}

// Without an SA the kernel swallows a datagram and reports success (xfrm_lookup, make_blackhole): a retransmission
// whose set has ended meanwhile would vanish and nobody would know. Streams are closed with their set.
bool Gateway::may_leave(const sip::Flow& flow) {
    if (!accesses_.is_protected(flow.local)) return true;
    const bool is_guarded = kernel_watch_.guards_stand();
    if (is_guarded && table_.covers(flow.local, flow.remote)) return true;
    counters_.add(Counter::no_sa);
    log::info("no-sa", {{"from", flow.local.to_string()},
                        {"to", flow.remote.to_string()},
                        {"why", is_guarded ? "the set of SAs of this message has ended; it is not sent"
                                           : "a guard policy is missing; nothing is sent until it stands again"}});
    return false;
}

// A phone over its SAs or its TLS connection, or the core.
bool Gateway::is_known(const sip::Flow& flow) {
    return accesses_.is_protected(flow.local) || !accesses_.find(flow.local) ||
           (flow.transport == sip::Transport::tls && table_.owner_of(flow).registration != nullptr);
}

// An emergency call goes on over its own connection, whoever makes it.
sip::Standing Gateway::standing_of(const sip::Flow& flow) {
    if (is_known(flow) || router_.emergency_dialogs().uses(flow.connection)) return sip::Standing::known;
    return known_addresses_.contains(flow.remote.address) ? sip::Standing::around : sip::Standing::unknown;
}

void Gateway::remember_address(const ContactKey& key) {
    const auto* registration = table_.find(key);
    if (!registration || registration->ended) return;
    if (registration->tls) known_addresses_.add(registration->tls->flow.remote.address);
    else if (const auto* set = registration->outbound()) known_addresses_.add(set->parameters.ue);
}

// Who has not registered may send as much as a REGISTER or an emergency call needs, and no more.
sip::MessageLimit Gateway::message_limit(const sip::Flow& flow) {
    if (is_known(flow)) return {};
    return {.message = config_.limits.unprotected_message, .body = config_.limits.unprotected_body};
}

// C-83: what may take the reserve of the transaction table: emergency calls, and what belongs to one from an
// unprotected port.
bool Gateway::is_urgent(const sip::Message& request) const {
    const auto asks = [&](const SipInterface& interface) {
        return is_emergency_request(request, interface.emergency_numbers);
    };
    return std::ranges::any_of(config_.sip_interfaces, asks) || router_.emergency_dialogs().covers(request);
}

// Overload: strangers begin nothing new, and when that does not help nobody does. What belongs to a dialog goes on, for
// it ends work; so does the answer to a challenge, whose SAs are there already, and a refresh; emergency calls always
// do.
bool Gateway::must_shed(const sip::Message& request, const sip::Flow& flow) {
    if (!loop_watch_.is_overloaded() || is_urgent(request) || router_.is_in_dialog(request, flow)) return false;
    if (is_known(flow) && !loop_watch_.is_far_behind()) return false;  // strangers first
    if (request.method() == sip::Method::register_ && accesses_.is_protected(flow.local)) return false;
    counters_.add(Counter::overload_refused);
    return true;
}

// Where answers go that the SIP layer makes by itself (400, 503): on a protected port over the set's own outbound SA,
// or nowhere.
std::optional<sip::Flow> Gateway::way_back(const sip::Flow& flow) {
    if (flow.transport != sip::Transport::udp || !accesses_.is_protected(flow.local)) return flow;
    const auto owner = table_.owner_of(flow);
    if (!owner.set) return std::nullopt;
    return SaSets::udp_flow(*owner.set);
}

// RFC 7339: while we refuse what it sends, an element of the core that can hold requests back is told how many.
std::string Gateway::tell_overload(std::string response, const sip::Flow& way) {
    constexpr unsigned kShare = 90;  // percent; what is new gets 503 anyway while it lasts
    constexpr milliseconds kValidity{1000};
    if (!loop_watch_.is_far_behind() || accesses_.find(way.local)) return response;
    OverloadReport report{.percent = kShare, .validity = kValidity};
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.wall().time_since_epoch()).count();
    report.sequence = {static_cast<std::uint64_t>(now / 1000), static_cast<std::uint64_t>(now % 1000) * 100};
    return with_overload_report(std::move(response), report);
}

// with its TLS connection a registration ends; the phone negotiates anew.
void Gateway::connection_ended(const sip::Flow& flow) {
    handover_.closed(flow);
    if (flow.transport != sip::Transport::tls) return;
    for (auto* registration : table_.bound_to(flow.connection)) {
        log::info("registration-ended", {{"impi", registration->key.impi.value},
                                         {"connection", flow.connection.value},
                                         {"why", "its TLS connection ended"}});
        table_.unbind(*registration);
        if (registration->sets.empty()) table_.take(ContactKey{registration->key});
    }
}

void Gateway::dispatch(std::shared_ptr<sip::ServerTransaction> transaction) {
    const auto executor = loop_.get_executor();
    const auto& flow = transaction->flow();
    const auto* access = accesses_.find(flow.local);
    if (const auto via = sip::top_via(transaction->request()); via && !access)
        transaction->set_reply_flow(sip::answer_way(flow, *via));
    if (!access && reg_events_.is_ours(transaction->request()))
        return spawn(executor, reg_events_.notify(std::move(transaction)), "notify");
    if (!access) return spawn(executor, router_.from_core(std::move(transaction)), "from_core");
    if (transaction->request().method() == sip::Method::register_)
        return spawn(executor, register_flow_.handle(std::move(transaction)), "register");
    const bool is_phones = accesses_.is_protected(flow.local) || table_.owner_of(flow).registration;
    if (is_phones && !router_.is_of_emergency_call(transaction->request(), flow))
        return spawn(executor, router_.from_ue(std::move(transaction)), "from_ue");
    spawn(executor,
          router_.unprotected(std::move(transaction), *access->interface,
                              supported_mechanisms(Policy::of(*access->interface, access->profile))),
          "unprotected");
}

}  // namespace gmgate::daemon
