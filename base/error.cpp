#include "base/error.h"

#include <system_error>

namespace gmgate {

const char* to_string(Reaction reaction) {
    switch (reaction) {
        case Reaction::reject:
            return "reject";
        case Reaction::retry:
            return "retry";
        case Reaction::exhausted:
            return "exhausted";
        case Reaction::refused:
            return "refused";
        case Reaction::broken:
            return "broken";
        case Reaction::internal:
            return "internal";
    }
    return "?";
}

std::unexpected<Error> system_failure(Reaction reaction, std::string text, int code) {
    text += ": ";
    text += std::generic_category().message(code);
    return failure(reaction, std::move(text), code);
}

}  // namespace gmgate
