// In which form lines leave: as text, as JSON, or as fields of the journal.
#pragma once

#include <string>

#include "base/log.h"

namespace gmgate::log {

enum class Format {
    text,  ///< `id key=value …`
    json,  ///< {"time":…,"level":…,"id":…,"key":"value",…}, one object a line
};
/// From now on; default: text.
void set_format(Format format);

/// Lines of Format::text go to journald by its own protocol (systemd.journal-fields(7)): the line as MESSAGE=, and each
/// of its keys as a field in capitals, such as IMPI=, UE= and WHY=, with the id as GMGATE_ID=. `socket`: where journald
/// listens; empty: no more. Standard error takes what it does not take. False with no socket to send from.
bool use_journal(const std::string& socket = "/run/systemd/journal/socket");

}  // namespace gmgate::log
