// What gmcore is told to do wrong, for all requests or, with --steer, for one.
#pragma once

#include "../common/error.h"

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace gmgate::peers {

struct Behaviour {
    bool challenge_refresh = false;  ///< challenge a re-REGISTER that needs none
    bool omit_keys = false;          ///< 401 without ck and ik
    bool stale_challenge = false;    ///< sequence number 0 in the challenge, so that the phone answers with AUTS
    bool silent = false;             ///< never answer
    std::optional<int> refuse;       ///< answer every REGISTER with this status
    std::optional<int> wrong_response_status;  ///< unset: 403; 401 means a new challenge
    std::optional<std::uint32_t> expires;      ///< granted instead of what was asked for
    std::chrono::milliseconds delay{0};        ///< wait before answering

    /// Applies one word: challenge, no-challenge, omit-keys, stale, silent, refuse=STATUS, delay=MS, expires=S.
    [[nodiscard]] Result<void> apply(std::string_view word);
};

/// Header by which a request steers the core when --steer is on: a comma list of Behaviour words.
inline constexpr std::string_view kSteerHeader = "X-Gmcore-Do";

}  // namespace gmgate::peers
