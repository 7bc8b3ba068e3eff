// Everything that is counted, in Prometheus' text format. Counters keep the names of counters.h (gmgate_NAME_total);
// the kernel's own counters stand under gmgate_xfrm_total and gmgate_tls_kernel…, told apart by the label `name`.
#pragma once

#include <functional>
#include <string>

#include "daemon/cluster/cluster.h"
#include "daemon/config/config.h"
#include "daemon/config/operator_state.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/observe/histogram.h"
#include "daemon/operate/control_server.h"
#include "daemon/operate/hep.h"
#include "daemon/operate/operations.h"
#include "daemon/operate/packet_tap.h"
#include "daemon/operate/registration_statistics.h"
#include "daemon/registrations/table.h"
#include "daemon/tls/certificates.h"
#include "ktls/types.h"
#include "sip/transaction/transactions.h"
#include "sip/transport/transport.h"
#include "xfrm/kernel.h"

namespace gmgate::daemon {

/// What the metrics are read from, at the moment of the scrape; all outlive it.
struct MetricSources {
    const Config& config;
    Table& table;
    const Counters& counters;
    const xfrm::Kernel& kernel;
    const sip::Transports& transports;
    const sip::Transactions& transactions;
    const PacketTap& tap;
    std::function<const ktls::Counters*()> tls_counters;  ///< null result: no TLS is configured
    std::function<bool()> guards_stand;
    std::function<bool()> is_draining;
    // What is null has no metrics.
    const CoreLink* core = nullptr;
    const RegistrationStatistics* statistics = nullptr;
    const Histogram* loop_lateness = nullptr;
    const std::optional<Operations::Reloaded>* reloaded = nullptr;
    const TlsCertificates* certificates = nullptr;
    std::function<std::uint64_t()> stray_encapsulated{};  ///< empty: no phones behind NAT are served
    std::function<ClusterNumbers()> cluster{};            ///< empty: the only gateway
    std::function<RecorderNumbers()> recorder{};
    std::function<HepNumbers()> hep{};  ///< empty: nothing is sent to a collector
};

/// The whole page of /metrics; counting registrations is done in slices.
Task<std::string> metrics_text(MetricSources sources);

}  // namespace gmgate::daemon
