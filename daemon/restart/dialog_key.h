// The key of the marks in Record-Route, kept in a file beside the registrations: what was begun before a restart or a
// take-over goes on.
#pragma once

#include <string>

#include "base/error.h"
#include "base/siphash.h"

namespace gmgate::daemon {

/// The key in the file at `path` (32 hexadecimal digits, mode 0600); makes the file with a fresh key when there is
/// none, or when what is there is no key or may be read or written by others. `is_new` tells which. Blocking, a few
/// hundred octets; for the start of the process. Reaction::refused with the reason: the file can be neither read nor
/// made.
Result<SipHashKey> kept_dialog_key(const std::string& path, bool& is_new);

}  // namespace gmgate::daemon
