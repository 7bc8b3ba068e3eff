// Whether what is written to a descriptor goes to journald, which understands priority prefixes.
#pragma once

namespace gmgate {

/// `variable`: JOURNAL_STREAM as systemd sets it, "DEVICE:INODE" of the stream; null: not set. True only when
/// `descriptor` is that very stream: a child inherits the variable also when its output goes to a file
/// (systemd.exec(5)).
bool is_journal_stream(const char* variable, int descriptor);

}  // namespace gmgate
