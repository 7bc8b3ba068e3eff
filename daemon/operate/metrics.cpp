#include "daemon/operate/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <limits>
#include <sstream>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "daemon/config/lab.h"
#include "daemon/observe/kernel_statistics.h"

namespace gmgate::daemon {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

class Page {
public:
    /// Each metric is declared once, here, with its help; `add` gives it values.
    class Metric {
    public:
        explicit Metric(MetricFamily& family) : family_(family) {}
        Metric& add(std::uint64_t value, std::vector<ClientMetric::Label> labels = {}) {
            ClientMetric metric;
            metric.label = std::move(labels);
            (family_.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) =
                static_cast<double>(value);
            family_.metric.push_back(std::move(metric));
            return *this;
        }

        /// A gauge or counter with a fraction.
        Metric& add_real(double value) {
            ClientMetric metric;
            (family_.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
            family_.metric.push_back(std::move(metric));
            return *this;
        }
        Metric& add(const Histogram& histogram, std::vector<ClientMetric::Label> labels = {}) {
            ClientMetric metric;
            metric.label = std::move(labels);
            metric.histogram.sample_count = histogram.count();
            metric.histogram.sample_sum = histogram.sum();
            std::uint64_t below = 0;
            for (std::size_t i = 0; i < Histogram::kBounds.size(); ++i)
                metric.histogram.bucket.push_back({below += histogram.in_bucket(i), Histogram::kBounds[i]});
            metric.histogram.bucket.push_back({histogram.count(), std::numeric_limits<double>::infinity()});
            family_.metric.push_back(std::move(metric));
            return *this;
        }

    private:
        MetricFamily& family_;
    };
    Metric counter(std::string name, std::string help) {
        return metric(std::move(name), std::move(help), MetricType::Counter);
    }
    Metric gauge(std::string name, std::string help) {
        return metric(std::move(name), std::move(help), MetricType::Gauge);
    }
    Metric histogram(std::string name, std::string help) {
        return metric(std::move(name), std::move(help), MetricType::Histogram);
    }
    /// Of the process itself, under the names that every exporter uses.
    Metric process(std::string name, std::string help, MetricType type) {
        families_.push_back({"process_" + std::move(name), std::move(help), type, {}});
        return Metric(families_.back());
    }
    std::string text() const {
        std::ostringstream out;
        prometheus::TextSerializer().Serialize(out, std::vector<MetricFamily>(families_.begin(), families_.end()));
        return out.str();
    }

private:
    Metric metric(std::string name, std::string help, MetricType type) {
        families_.push_back({"gmgate_" + std::move(name), std::move(help), type, {}});
        return Metric(families_.back());
    }
    std::deque<MetricFamily> families_;
};

// A code is a label: what counts refusals need not know which codes there are.
void add_counters(Page& page, const Counters& counters) {
    constexpr std::string_view kCode = "reject_";
    for (std::size_t i = 0; i < kCounterInfo.size(); ++i)
        if (!kCounterInfo[i].name.starts_with(kCode))
            page.counter(std::string(kCounterInfo[i].name) + "_total", std::string(kCounterInfo[i].help))
                .add(counters.at(i));
    auto rejected = page.counter("rejected_total", "answers of the gateway's own that refuse a request, by code");
    for (std::size_t i = 0; i < kCounterInfo.size(); ++i)
        if (kCounterInfo[i].name.starts_with(kCode))
            rejected.add(counters.at(i), {{"code", std::string(kCounterInfo[i].name.substr(kCode.size()))}});
}

void add_registrations(Page& page, const MetricSources& s, const TableCounts& counts) {
    page.gauge("registrations", "registered contacts")
        .add(counts.over_ipsec, {{"mechanism", "ipsec-3gpp"}})
        .add(counts.over_tls, {{"mechanism", "tls"}});
    page.gauge("challenges", "challenges that wait for the phone's answer").add(s.table.challenge_count());
    page.gauge("sa_sets", "sets of four SAs by state (TS 24.229 table 5.2.2-1)")
        .add(counts.temporary, {{"state", "temporary"}})
        .add(counts.established, {{"state", "established"}})
        .add(counts.old_sets, {{"state", "old"}});
    page.gauge("limit", "configured limits")
        .add(s.config.limits.registrations, {{"of", "registrations"}})
        .add(s.config.limits.challenges, {{"of", "challenges"}})
        .add(s.config.limits.connections, {{"of", "connections"}})
        .add(s.config.limits.transactions, {{"of", "transactions"}});
    page.gauge("guards_stand",
               "1: all guard policies are in the kernel; 0: one is missing and nothing is sent from protected ports")
        .add(s.guards_stand() ? 1 : 0);
    page.gauge("draining", "1: new registrations are refused").add(s.is_draining() ? 1 : 0);
}

void add_transport(Page& page, const MetricSources& s) {
    const auto& t = s.transports.counters();
    page.gauge("connections", "open stream connections").add(s.transports.connection_count());
    page.counter("datagrams_total", "UDP datagrams")
        .add(t.datagrams_in, {{"direction", "in"}})
        .add(t.datagrams_out, {{"direction", "out"}});
    page.counter("datagrams_not_sent_total", "UDP datagrams that the kernel did not take").add(t.datagrams_not_sent);
    page.counter("sip_messages_total", "SIP messages received").add(t.messages_in);
    page.counter("sip_malformed_total", "received bytes that are no SIP").add(t.malformed);
    page.counter(
            "sip_too_large_total",
            "of these, messages larger than their sender may send ([limits] unprotected-message, unprotected-body)")
        .add(t.too_large);
    page.counter("keep_alives_total", "CRLF keep-alives received").add(t.keep_alives);
    page.counter("stun_requests_total", "STUN binding requests received").add(t.stun_requests);
    page.counter("connections_opened_total", "stream connections opened by the gateway").add(t.connections_opened);
    page.counter("connections_accepted_total", "stream connections accepted").add(t.connections_accepted);
    page.counter("connections_refused_limit_total", "stream connections refused because of a limit")
        .add(t.connections_refused_limit);
    page.counter(
            "connections_gave_way_total",
            "connections of peers that have not registered, ended because a limit was reached and a newer one came")
        .add(t.connections_gave_way);
    page.counter("connections_outlived_total",
                 "connections of peers that have not registered, ended after [timers] stranger-connection")
        .add(t.connections_outlived);
    page.counter("write_queue_overflows_total", "connections closed because their peer did not read")
        .add(t.write_queue_overflows);
    const auto& x = s.transactions.counters();
    page.gauge("transactions", "SIP transactions in progress")
        .add(s.transactions.server_count(), {{"side", "server"}})
        .add(s.transactions.client_count(), {{"side", "client"}});
    page.counter("retransmissions_total", "SIP retransmissions")
        .add(x.retransmissions_in, {{"direction", "in"}})
        .add(x.retransmissions_out, {{"direction", "out"}});
    page.counter("stray_responses_total", "responses that belong to no transaction").add(x.stray_responses);
    page.counter("responses_wrong_door_total",
                 "responses dropped because they came from elsewhere than their request was sent to")
        .add(x.responses_wrong_door);
    page.counter("cancels_unmatched_total", "CANCELs answered 481: no INVITE that came the same way is open")
        .add(x.cancels_unmatched);
    page.counter("transactions_refused_limit_total", "requests answered 503 because of the limit of transactions")
        .add(x.refused_limit);
    page.counter("transaction_timeouts_total", "requests sent that were never answered").add(x.timeouts);
}

void add_kernel(Page& page, const MetricSources& s) {
    const auto& k = s.kernel.counters();
    page.counter("netlink_requests_total", "netlink messages sent to XFRM").add(k.requests);
    page.counter("netlink_system_calls_total", "system calls on the netlink socket").add(k.system_calls);
    page.counter("sa_sets_installed_total", "sets of SAs that the kernel took").add(k.sets_installed);
    page.counter("sa_sets_refused_total", "sets of SAs that the kernel refused and that were rolled back")
        .add(k.sets_refused);
    page.counter("sa_sets_removed_total", "sets of SAs removed from the kernel").add(k.sets_removed);
    const auto engine = s.kernel.status();
    page.gauge("engine_up", "1: the SA engine serves; 0: its process is being started again")
        .add(engine.is_up ? 1 : 0, {{"engine", engine.engine}});
    page.counter("engine_restarts_total", "times that the SA engine's process died and was started again")
        .add(engine.starts > 1 ? engine.starts - 1 : 0);
    page.counter("engine_refused_total", "requests that the SA engine itself refused: gmgated is not what it should be")
        .add(engine.malformed, {{"why", "malformed"}})
        .add(engine.forbidden, {{"why", "forbidden"}})
        .add(engine.flooded, {{"why", "flooded"}});
    auto xfrm = page.counter("xfrm_total",
                             "/proc/net/xfrm_stat of this network namespace; gmctl kernel tells what each name means");
    for (const auto& one : xfrm_statistics()) xfrm.add(one.value, {{"name", one.name}});
    if (s.stray_encapsulated)
        page.counter("nat_stray_datagrams_total",
                     "datagrams at UDP 4500 that were neither ESP nor keep-alives: dropped")
            .add(s.stray_encapsulated());
    std::vector<KernelStatistic> now, ever;
    for (auto& one : tls_statistics()) (one.name.starts_with("TlsCurr") ? now : ever).push_back(std::move(one));
    auto current = page.gauge("tls_kernel_sessions", "/proc/net/tls_stat: TLS sessions in the kernel now");
    for (const auto& one : now) current.add(one.value, {{"name", one.name}});
    auto total = page.counter("tls_kernel_total", "/proc/net/tls_stat: what the kernel counted since it started");
    for (const auto& one : ever) total.add(one.value, {{"name", one.name}});
    const auto& tap = s.tap.counters();
    page.counter("tap_packets_total", "packets that the packet tap looked at").add(tap.packets);
    page.counter("tap_over_rate_total", "packets that the packet tap passed over because of its limit")
        .add(tap.over_rate);
    page.counter("tap_unknown_spi_total", "ESP packets for SPIs that no SA has, as far as looked at")
        .add(tap.unknown_spi);
    page.counter("tap_clear_protected_total", "packets in clear to protected ports").add(tap.clear_protected);
}

void add_tls(Page& page, const MetricSources& s) {
    const auto* tls = s.tls_counters ? s.tls_counters() : nullptr;
    if (!tls) return;
    std::uint64_t failed = 0;
    for (const auto one : tls->handshakes_failed) failed += one;
    page.counter("tls_handshakes_total", "TLS handshakes")
        .add(tls->handshakes_ok, {{"outcome", "ok"}})
        .add(failed, {{"outcome", "failed"}});
    page.counter("tls_resumed_total", "TLS sessions resumed").add(tls->resumed);
    page.counter("tls_handed_to_kernel_total", "TLS sessions handed to the kernel").add(tls->handed_to_kernel);
    page.counter("tls_fallback_total",
                 "TLS sessions that stayed in this process although they were meant for the kernel")
        .add(tls->fallback);
    page.counter("tls_key_updates_total", "connections closed because the peer changed its keys").add(tls->key_updates);
    page.counter("tls_decrypt_errors_total", "TLS records that failed authentication").add(tls->decrypt_errors);
    page.counter("tls_bad_records_total", "TLS records that had no place").add(tls->bad_records);
    page.counter("tls_truncated_total", "TLS connections that ended without close_notify").add(tls->truncated);
}

void add_core(Page& page, const MetricSources& s) {
    if (!s.core) return;
    auto up = page.gauge("next_hop_up", "1: this element of the core answers; 0: it did not, the last time");
    for (const auto& [element, entry] : s.core->hops().all())
        if (s.core->hops().is_current(element)) up.add(entry.is_up ? 1 : 0, {{"next_hop", element.to_string()}});
    page.gauge("next_hops_disabled", "next hops that an operator has taken out of use")
        .add(s.core->hops().disabled().size());
    auto response = page.histogram("core_response_seconds",
                                   "from a request of a phone, INVITE excepted, to the final answer of a next hop");
    for (const auto& [element, entry] : s.core->hops().all())
        if (s.core->hops().is_current(element) && entry.responses.count() != 0)
            response.add(entry.responses, {{"next_hop", element.to_string()}});
}

void add_durations(Page& page, const MetricSources& s) {
    if (s.loop_lateness)
        page.histogram("loop_lag_seconds", "how late the loop woke up, looked at ten times a second")
            .add(*s.loop_lateness);
    if (!s.statistics) return;
    auto durations = page.histogram(
        "registration_duration_seconds",
        "by phase: challenge (REGISTER to 401), phone (401 to REGISTER over the SAs), answer (to its 200), whole");
    for (const auto& [phase, histogram] : s.statistics->durations()) durations.add(histogram, {{"phase", phase}});
}

void add_cluster(Page& page, const ClusterNumbers& n) {
    page.gauge("cluster_serves", "1: this node has the addresses and serves").add(n.serves ? 1 : 0);
    page.gauge("cluster_degraded", "1: the shared store does not answer").add(n.is_degraded ? 1 : 0);
    page.gauge("cluster_epoch", "counts take-overs in the cluster; 0: not known").add(n.epoch);
    page.gauge("cluster_records_waiting", "registrations that are still to be written to the shared store")
        .add(n.waiting);
    auto records = page.counter("cluster_records_total", "what became of records of the shared store");
    records.add(n.replica.written, {{"what", "written"}})
        .add(n.replica.erased, {{"what", "erased"}})
        .add(n.replica.failed, {{"what", "failed"}})
        .add(n.follower.refused, {{"what", "refused"}});
    page.counter("cluster_unreplicated_total", "answers to phones that left before their record was in the store")
        .add(n.replica.unreplicated);
    page.counter("cluster_sets_installed_total", "sets of SAs of another node that this one has installed")
        .add(n.follower.installed);
    page.gauge("cluster_ready_registrations", "registrations of the node that serves, held ready for a take-over")
        .add(n.follower.registrations);
    page.gauge("cluster_standby_level", "1: this node stands by and holds everything that the shared store has")
        .add(n.follower.is_level && !n.serves ? 1 : 0);
}

void add_recorder(Page& page, const RecorderNumbers& n) {
    page.gauge("recorder_attempts", "registrations and calls whose messages are kept: under way, or failed")
        .add(n.attempts);
    page.gauge("recorder_octets", "memory that they take, at most [limits] recorded-octets").add(n.octets);
    page.counter("recorder_messages_total", "messages that were kept").add(n.kept);
    page.counter("recorder_forgotten_total",
                 "registrations and calls whose messages were forgotten: they succeeded, or others of their source "
                 "or in all came when the limit was reached")
        .add(n.succeeded, {{"why", "succeeded"}})
        .add(n.gave_way_source, {{"why", "limit-of-source"}})
        .add(n.gave_way_in_all, {{"why", "limit-in-all"}});
    page.counter("recorder_left_out_total", "messages of an attempt that is as large as its source may have")
        .add(n.messages_left_out);
}

void add_hep(Page& page, const HepNumbers& n) {
    page.counter("hep_packets_total", "messages for hep-collector")
        .add(n.sent, {{"outcome", "sent"}})
        .add(n.dropped, {{"outcome", "dropped"}});
    page.gauge("hep_connected", "1: packets go to hep-collector; 0: its connection is down")
        .add(n.is_connected ? 1 : 0);
}

std::uint64_t unix_seconds(std::chrono::system_clock::time_point at) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count());
}

void add_lab(Page& page, const MetricSources& s) {
    page.gauge("keys_exported", "1: [lab] export-keys is on, and whoever is root here reads all that phones say")
        .add(lab_of(s.config.settings).export_keys ? 1 : 0);
}

void add_certificates(Page& page, const MetricSources& s) {
    if (!s.certificates) return;
    auto ends = page.gauge("certificate_end_timestamp_seconds", "when the first certificate of a profile ends");
    for (const auto& [name, at] : s.certificates->ends()) ends.add(unix_seconds(at), {{"of", name}});
}

void add_reload(Page& page, const MetricSources& s) {
    if (!s.reloaded || !*s.reloaded) return;
    page.gauge("last_reload_timestamp_seconds", "when the configuration was read again")
        .add(unix_seconds((*s.reloaded)->at));
    page.gauge("last_reload_worked",
               "0: the file had mistakes, or a certificate was not good, and that stays as it was")
        .add((*s.reloaded)->worked ? 1 : 0);
}

const auto kStarted = std::chrono::system_clock::now();  // before main()

// The same names and units as the client libraries of Prometheus have.
void add_process(Page& page) {
    page.process("start_time_seconds", "when this process began, since 1970", MetricType::Gauge)
        .add(unix_seconds(kStarted));
    rusage used{};
    if (getrusage(RUSAGE_SELF, &used) == 0) {
        const auto seconds = [](const timeval& time) {
            return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
        };
        page.process("cpu_seconds_total", "user and system time of this process", MetricType::Counter)
            .add_real(seconds(used.ru_utime) + seconds(used.ru_stime));
    }
    std::ifstream memory("/proc/self/statm");
    std::uint64_t pages = 0, resident = 0;
    if (memory >> pages >> resident)
        page.process("resident_memory_bytes", "memory of this process that is in RAM", MetricType::Gauge)
            .add(resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)));
}

}  // namespace

Task<std::string> metrics_text(MetricSources sources) {
    const TableCounts counts = co_await sources.table.count();
    Page page;
    page.gauge("build_info", "1, with the version as a label").add(1, {{"version", GMGATE_VERSION}});
    add_counters(page, sources.counters);
    add_registrations(page, sources, counts);
    add_transport(page, sources);
    add_kernel(page, sources);
    add_tls(page, sources);
    add_core(page, sources);
    add_durations(page, sources);
    add_lab(page, sources);
    add_certificates(page, sources);
    add_reload(page, sources);
    if (sources.hep) add_hep(page, sources.hep());
    if (sources.recorder) add_recorder(page, sources.recorder());
    if (sources.cluster) add_cluster(page, sources.cluster());
    add_process(page);
    co_return page.text();
}

}  // namespace gmgate::daemon
