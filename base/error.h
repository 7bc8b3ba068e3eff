// What a fallible function returns instead of a value: a text for people, an errno, and the reaction it asks for.
#pragma once

#include <expected>
#include <string>
#include <utility>

namespace gmgate {

/// How the caller should react; an Error is typed by this and not by where it arose.
enum class Reaction {
    reject,     ///< the peer's input is at fault: answer with an error, keep state as it is
    retry,      ///< a passing condition (a full queue, ENOBUFS): the same call may succeed later
    exhausted,  ///< a configured limit was reached: refuse, count
    refused,    ///< the kernel or a peer said no, finally
    broken,     ///< a connection, socket or process is gone: re-open or give up on it
    internal,   ///< our own fault; log with the text
};

const char* to_string(Reaction reaction);

/// `text` is one sentence with the reason and, where there is one, the fix. It never contains key material.
struct Error {
    Reaction reaction = Reaction::internal;
    int code = 0;  ///< errno, 0 when none applies
    std::string text;
};

template <class T>
using Result = std::expected<T, Error>;

/// `return failure(Reaction::reject, "why")`.
inline std::unexpected<Error> failure(Reaction reaction, std::string text, int code = 0) {
    return std::unexpected(Error{reaction, code, std::move(text)});
}
/// A failure of a system call: appends strerror(code) to the text.
std::unexpected<Error> system_failure(Reaction reaction, std::string text, int code);

}  // namespace gmgate
