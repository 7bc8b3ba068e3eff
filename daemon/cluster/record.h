// A registration as the nodes of a cluster hand it on: the row of the store as octets, and each set's keys under seal.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "daemon/registrations/stored.h"
#include "xfrm/sealing.h"

namespace gmgate::daemon {

/// Its field in the shared store: private identity, instance and reg-id.
std::string record_field(const ContactKey& key);

/// An authentication that waits for its phone's answer (Challenge): what it has beside its set, its contact and its
/// token, which stand in the row.
struct HandedChallenge {
    std::string nonce;
    std::optional<SetNumber> came_over;
};
/// What a challenge is filed under, in the shape of a contact that no phone has.
ContactKey challenge_place(const ChallengeKey& key);
/// The challenge that is filed there; nullopt for a contact.
std::optional<ChallengeKey> challenge_at(const ContactKey& place);

/// The row without keys. Times are written by the wall clock: another machine's steady clock is another one.
/// `challenge`: the row is not of a registration, and has one temporary set.
std::string encode_row(const StoredRegistration& row, const Clock& clock, const HandedChallenge* challenge = nullptr);
/// What the seals cover of a row.
xfrm::RecordDigest digest_of(std::string_view row);

/// The record: the row, and one seal for each of its sets, in its order.
std::string encode_record(std::string_view row, const std::vector<xfrm::SealedKeys>& seals);

struct ClusterRecord {
    StoredRegistration row;
    std::optional<HandedChallenge> challenge;  ///< then the row is that of a challenge
    xfrm::RecordDigest digest;
    std::vector<xfrm::SealedKeys> seals;  ///< one for each of row.sets
    /// The field that it belongs to.
    std::string field() const;
};
/// Reaction::reject for what is no record. The store is not trusted: only what a seal opens for was written by a node.
Result<ClusterRecord> decode_record(std::string_view octets, const Clock& clock);

}  // namespace gmgate::daemon
