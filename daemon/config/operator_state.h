// What an operator has set on the running gateway, beside the configuration.
#pragma once

#include <string>

namespace gmgate::daemon {

struct OperatorState {
    bool draining = false;  ///< new registrations get 503; those that stand go on until they end
    std::string log_level;  ///< in force now
};

}  // namespace gmgate::daemon
