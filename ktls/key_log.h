// Secrets of TLS sessions for Wireshark, in a lab that wants them: nothing is written unless log_keys_to() was called.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace gmgate::ktls {

/// From now on the secrets of all sessions of this process, of either role, are appended to a file that only its owner
/// may read, in the format of NSS ("LABEL client_random secret"), which Wireshark takes as "(Pre)-Master-Secret log".
/// It ends at 64 MiB. Reaction::reject with the reason; a link is not followed.
Result<void> log_keys_to(const std::string& path);
/// A line of OpenSSL's keylog callback, without its end. Any thread.
void log_key_line(std::string_view line);

}  // namespace gmgate::ktls
