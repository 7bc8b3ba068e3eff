// The SA engine in a process of its own: what it is told, and how it is started while this process still may.
#pragma once

#include "daemon/config/cluster.h"
#include "daemon/config/config.h"
#include "sip/transport/socket.h"
#include "xfrm/engine/frames.h"

namespace gmgate::daemon {

/// Everything that the engine may ever be asked for, from the configuration.
xfrm::EngineConfiguration engine_configuration(const Config& config);

/// Whether the programs that `sa-engine` asks for are there. Reaction::refused with what is missing and the fix.
Result<void> check_engine(const Config& config);

/// The same of phones behind NAT, for an engine in this process.
std::vector<xfrm::NatBlock> nat_blocks(const Config& config);

/// Starts gmgate-xfrmd, the guardian of the engine, with this process's capabilities, and gives it the configuration.
/// The socket to it comes back, for xfrm::EngineClient. The program is looked for beside this one's own, then in
/// GMGATE_LIBEXEC. Reaction::refused with the reason.
/// `cluster`: it reads that cluster's secret; null: none.
Result<sip::FileDescriptor> start_engine(const Config& config, const ClusterConfig* cluster = nullptr);

}  // namespace gmgate::daemon
