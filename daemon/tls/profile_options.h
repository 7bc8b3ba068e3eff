// A [[tls-profile]] as what ktls/ serves.
#pragma once

#include "base/error.h"
#include "daemon/config/config.h"
#include "ktls/context.h"

namespace gmgate::daemon {

/// For a port of phones. The Error is the configuration file's: it changed since it was checked.
Result<ktls::ServerOptions> phone_options(const Config& config, const TlsProfile& profile);
/// For the port towards the core: between servers both ends show certificates, and both are judged by RFC 5922.
Result<ktls::ServerOptions> core_options(const Config& config, const TlsProfile& profile);

}  // namespace gmgate::daemon
